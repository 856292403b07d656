"""Rendered scenes and a model, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.registry import DefaultScope

from mtadapt.apis import MultiTaskInferencer
from mtadapt.datasets.synthetic import write_bdd100k

from .trained import Trained, trained_lv


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training and five validation scenes of 160x96."""
    folder = tmp_path_factory.mktemp("scenes")
    write_bdd100k(folder, train=3, val=5, size=(160, 96), seed=1, workers=1)
    return folder


@pytest.fixture(scope="session")
def scenes(data: Path) -> list[Path]:
    """The images of the validation scenes."""
    return sorted((data / "images/100k/val").iterdir())


@pytest.fixture(scope="session")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The model's files."""
    return trained_lv(tmp_path_factory.mktemp("trained"), data)


@pytest.fixture(scope="session")
def inferencer(trained: Trained) -> MultiTaskInferencer:
    """The model."""
    with DefaultScope.overwrite_default_scope("mtadapt"):
        return MultiTaskInferencer(trained.config, trained.checkpoint, device="cpu", show_progress=False)
