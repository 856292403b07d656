"""A small multi-task model with random weights that finds something, as a run would leave it."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.registry import MODELS
from tests.command_line import ROOT

CONFIG = """
_base_ = "{root}/configs/mt_synthetic_lv.py"
val_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}"))
test_dataloader = val_dataloader
model = dict(backbone=dict(pretrained=None))
"""


class Trained:
    """A config and its checkpoint, with the config and the classes in its meta.

    Args:
        folder: for both.
        text: of the config.
        meta: of the data.
    """

    def __init__(self, folder: Path, text: str, meta: dict | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "model.py"
        self.config.write_text(text)
        self.checkpoint = folder / "epoch_1.pth"
        config = Config.fromfile(self.config)
        torch.manual_seed(1)
        with DefaultScope.overwrite_default_scope("mtadapt"):
            network = MODELS.build(config.model)
        for name, parameter in network.named_parameters():
            # Heads begin with weights that hardly tell one box or pixel from another.
            if name.startswith(("tasks.", "adapter.")) and parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.1)
        meta = dict(cfg=config.pretty_text, dataset_meta=meta) if meta else dict(cfg=config.pretty_text)
        torch.save(dict(state_dict=network.state_dict(), meta=meta), self.checkpoint)


def trained_lv(folder: Path, data: Path) -> Trained:
    """LV-Adapter with three tasks."""
    return Trained(folder, CONFIG.format(root=ROOT, data=data), METAINFO)
