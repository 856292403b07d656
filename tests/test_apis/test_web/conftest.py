"""A model whose adapter speaks up, its checkpoint, and a few scenes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.registry import DefaultScope

from mtadapt.apis import MultiTaskInferencer
from mtadapt.apis.web import Predictor
from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.engine import load_config
from mtadapt.registry import MODELS
from tests.command_line import ROOT

CONFIG = """
_base_ = "{root}/configs/mt_synthetic_lv.py"
model = dict(backbone=dict(pretrained=None), adapter=dict(gate=3.0))
"""


class Trained(NamedTuple):
    config: Path
    checkpoint: Path
    examples: Path


@pytest.fixture(scope="package")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Weights at random, with gates that are open: other names give other classes."""
    folder = tmp_path_factory.mktemp("web")
    config, checkpoint, examples = folder / "config.py", folder / "model.pth", folder / "examples"
    config.write_text(CONFIG.format(root=ROOT))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mtadapt"):
        model = MODELS.build(load_config(str(config)).model)
        model.init_weights()
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    write_bdd100k(folder / "data", train=1, val=2, size=(160, 96), seed=1, workers=1)
    shutil.copytree(folder / "data/images/100k/val", examples)
    return Trained(config, checkpoint, examples)


@pytest.fixture(scope="package")
def inferencer(trained: Trained) -> MultiTaskInferencer:
    return MultiTaskInferencer(trained.config, trained.checkpoint, "cpu", show_progress=False)


@pytest.fixture(scope="package")
def predictor(inferencer: MultiTaskInferencer) -> Predictor:
    return Predictor(inferencer)
