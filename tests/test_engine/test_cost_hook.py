"""What a training costs, over its resumes."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mtadapt.engine.hooks.cost_hook import CostHook
from tests.test_engine.test_non_finite_hook import ADAM, Images, Small

# 0.1 seconds a step, six steps.
PAUSE, STEPS = 0.1, 6


class Slow(Hook):
    """Every step takes a while, and the process may die in one."""

    def __init__(self, dies_at: int = -1) -> None:
        self.dies_at = dies_at

    def before_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        time.sleep(PAUSE)
        if runner.iter == self.dies_at:
            raise ZeroDivisionError


class Frozen(Small):
    """A model whose convolution rests."""

    def __init__(self) -> None:
        super().__init__()
        self.conv.requires_grad_(False)


def train(folder: Path, slow: Slow, resume: bool = False) -> dict:
    """Train and return what the hook has written."""
    runner = Runner(
        model=Frozen(),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=Images({}),
            batch_size=2,
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="pseudo_collate"),
        ),
        train_cfg=dict(by_epoch=False, max_iters=STEPS),
        optim_wrapper=dict(optimizer=dict(ADAM)),
        default_hooks=dict(
            cost=CostHook(interval=0), checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2)
        ),
        custom_hooks=[slow],
        resume=resume,
        default_scope="mtadapt",
        experiment_name=f"{folder.name}_{time.monotonic_ns()}",
    )
    # What happens before the first step is not counted.
    time.sleep(5 * PAUSE)
    try:
        runner.train()
    except ZeroDivisionError:
        assert slow.dies_at >= 0
    return json.loads((folder / "cost.json").read_text())


def test_seconds_of_all_attempts(tmp_path: Path):
    start = time.monotonic()
    first = train(tmp_path / "run", Slow(dies_at=5))
    # Five whole steps; the sixth was not finished.
    assert 5 * PAUSE <= first["seconds"] < time.monotonic() - start - 5 * PAUSE
    resumed = train(tmp_path / "run", Slow(), resume=True)
    # Steps five and six, after the checkpoint of the fourth.
    added = resumed["seconds"] - first["seconds"]
    assert added >= 2 * PAUSE and resumed["seconds"] <= time.monotonic() - start - 10 * PAUSE
    # A training that begins anew forgets the others.
    start = time.monotonic()
    whole = train(tmp_path / "run", Slow())
    assert whole["seconds"] >= STEPS * PAUSE and whole["seconds"] <= time.monotonic() - start - 5 * PAUSE


def test_what_it_runs_on(tmp_path: Path):
    cost = train(tmp_path / "run", Slow())
    cuda = torch.cuda.is_available()
    # Convolution 3 x 4 x 3 x 3 + 4, batch norm 4 + 4, linear layer 4 + 1.
    assert (cost["parameters"], cost["trainable"]) == (125, 13)
    assert (cost["devices"], cost["device"]) == (1, torch.cuda.get_device_name() if cuda else "cpu")
    assert (cost["peak_memory_mib"] is None) == (not cuda)
