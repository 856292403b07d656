"""What ExpertUsageHook writes, and when."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from mmengine.visualization import LocalVisBackend
from torch import nn

from mtadapt.engine import ExpertUsageHook


class Backend:
    """Keeps the pictures that it is given."""

    def __init__(self) -> None:
        self.pictures: list[tuple] = []

    def add_image(self, name: str, image: object, step: int) -> None:
        self.pictures.append((name, image.shape, step))


class Layer(nn.Module):
    """Buffers and routers of a layer with four experts for two tasks that share none."""

    def __init__(self) -> None:
        super().__init__()
        self.routers = nn.ModuleDict({task: nn.Sequential(nn.Linear(2, 4)) for task in ("det", "cls")})
        self.usage = nn.Module()
        self.usage.register_buffer("probability", torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]]))
        self.usage.register_buffer("load", torch.tensor([[0.75, 0.25, 0, 0], [0, 0, 0.5, 0.5]]))
        self.usage.register_buffer("updates", torch.tensor([1, 1]))


def runner(model: nn.Module, work_dir: Path) -> SimpleNamespace:
    backends = dict(LocalVisBackend=LocalVisBackend(str(work_dir / "local")), Board=Backend())
    return SimpleNamespace(
        model=model,
        work_dir=str(work_dir),
        iter=20,
        visualizer=SimpleNamespace(_vis_backends=backends),
        logger=logging.getLogger("usage"),
    )


@pytest.mark.parametrize("wrapped", [False, True])
def test_validations_and_the_end_write_a_picture_and_numbers(wrapped: bool, tmp_path: Path):
    model = nn.Sequential(nn.Linear(2, 2), Layer())
    run = runner(nn.DataParallel(model) if wrapped else model, tmp_path)
    hook = ExpertUsageHook()
    hook.before_train(run)
    hook.after_val_epoch(run)
    hook.after_train(run)
    folder = tmp_path / "expert_usage"
    assert sorted(path.name for path in folder.iterdir()) == ["iter_20.json", "iter_20.png"]
    content = json.loads((folder / "iter_20.json").read_text())["1"]
    assert content["mutual_information"] == pytest.approx(math.log(2))
    assert content["entropy"] == pytest.approx(dict(det=math.log(2), cls=math.log(2)))
    assert content["load"] == dict(det=[0.75, 0.25, 0, 0], cls=[0, 0, 0.5, 0.5])
    picture = cv2.imread(str(folder / "iter_20.png"))
    board = run.visualizer._vis_backends["Board"]
    assert board.pictures == [("expert_usage", picture.shape, 20)], "once, though the training ended at a validation"
    assert not list((tmp_path / "local").rglob("*.png"))
    run.iter = 25
    hook.after_train(run)
    assert (folder / "iter_25.json").is_file() and board.pictures[1][2] == 25


def test_models_without_experts_and_other_processes_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hook = ExpertUsageHook()
    hook.after_val_epoch(runner(nn.Linear(2, 2), tmp_path))
    hook.after_train(runner(nn.Linear(2, 2), tmp_path))
    monkeypatch.setattr("mmengine.dist.utils.is_main_process", lambda: False)
    hook.after_val_epoch(runner(Layer(), tmp_path))
    hook.after_train(runner(Layer(), tmp_path))
    assert not list(tmp_path.iterdir())


def test_buffers_of_a_model_whose_parameters_are_spread_are_the_real_ones(tmp_path: Path):
    """The strategy's outline has the shapes, the running model the buffers, under the wrappers' names."""
    model = nn.ModuleDict(dict(backbone=Layer()))
    run = runner(model, tmp_path)
    run.strategy = SimpleNamespace(outline=nn.ModuleDict(dict(backbone=Layer())).to("meta"))
    model["backbone"] = nn.ModuleDict(dict(_fsdp_wrapped_module=model["backbone"]))
    model["backbone"]["_fsdp_wrapped_module"].routers = nn.ModuleDict()
    ExpertUsageHook().after_val_epoch(run)
    content = json.loads((tmp_path / "expert_usage/iter_20.json").read_text())["backbone"]
    assert content["load"] == dict(det=[0.75, 0.25, 0, 0], cls=[0, 0, 0.5, 0.5])
