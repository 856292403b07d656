"""Accumulation windows of each source against one step with the mean gradient."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch.optim import SGD
from torch.utils.data import Dataset

from mtadapt.engine import (
    AmpSourceAccumulationOptimWrapper,
    GradientSurgeryOptimWrapper,
    SourceAccumulationHook,
    SourceAccumulationOptimWrapper,
)
from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample
from tests.test_engine.tiny import Tiny, batches, joined, two_processes

#: Of ten iterations: a window of 3, two of 1, one of 4, one of 2 that the end cuts short.
WINDOWS = [(0, 3), (1, 3), (2, 3), (0, 1), (0, 1), (0, 4), (1, 4), (2, 4), (3, 4), (0, 2)]
ENDS = [False, False, True, True, True, False, False, False, True, True]


def by_hand(parts: list[dict]) -> Tiny:
    """A step with each window's mean gradient."""
    model = Tiny()
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    for window in (parts[:3], parts[3:4], parts[4:5], parts[5:9], parts[9:]):
        optimizer.zero_grad()
        for part in window:
            (sum(model(**part).values()) / len(window)).backward()
        optimizer.step()
    return model


def sgd(model: torch.nn.Module) -> SGD:
    return SGD(model.parameters(), lr=0.1, momentum=0.9)


def assert_close(model: torch.nn.Module, expected: torch.nn.Module) -> None:
    for (name, one), other in zip(model.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_windows_average_their_iterations():
    parts, model = batches(10), Tiny()
    wrapper = SourceAccumulationOptimWrapper(sgd(model))
    wrapper.initialize_count_status(model, 0, 10)
    for part, window, end in zip(parts, WINDOWS, ENDS, strict=True):
        wrapper.set_window(*window)
        assert wrapper.should_sync() == end
        before = copy.deepcopy(model.state_dict())
        model.train_step(part, wrapper)
        assert wrapper.should_update() == end
        assert torch.equal(before["trunk.0.weight"], model.trunk[0].weight) != end
    assert_close(model, by_hand(parts))


def test_without_windows_it_is_mmengines_wrapper():
    parts, models = batches(5), (Tiny(), Tiny())
    for model, kind in zip(models, (SourceAccumulationOptimWrapper, OptimWrapper), strict=True):
        wrapper = kind(sgd(model), accumulative_counts=2)
        wrapper.initialize_count_status(model, 0, 5)
        for part in parts:
            if kind is SourceAccumulationOptimWrapper:
                wrapper.set_window(0, 1)
            model.train_step(part, wrapper)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def worker(rank: int, folder: str) -> None:
    model = Tiny()
    parallel = MMDistributedDataParallel(model)
    wrapper = SourceAccumulationOptimWrapper(sgd(model))
    for batch, window in zip(batches(10), [*WINDOWS[:9], (0, 1)], strict=True):
        wrapper.set_window(*window)
        half = {key: value[4 * rank : 4 * rank + 4] for key, value in batch.items()}
        parallel.train_step(half, wrapper)
        if window == (1, 3):
            torch.save(model.trunk[0].weight.grad, f"{folder}/inside_{rank}.pth")
    torch.save(model.state_dict(), f"{folder}/{rank}.pth")


def test_two_processes_exchange_at_the_end_of_a_window(tmp_path: Path):
    two_processes(worker, tmp_path, str(tmp_path))
    inside = [torch.load(tmp_path / f"inside_{rank}.pth") for rank in range(2)]
    assert not torch.equal(*inside)
    expected = by_hand(batches(10)).state_dict()
    for rank in range(2):
        for name, value in torch.load(tmp_path / f"{rank}.pth").items():
            torch.testing.assert_close(value, expected[name], msg=name)


def test_mixed_precision_scales_and_averages(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available", lambda: True)
    parts, models = batches(10), (Tiny(), Tiny())
    for model, scale in zip(models, (1.0, 512.0), strict=True):
        wrapper = AmpSourceAccumulationOptimWrapper(optimizer=sgd(model), dtype="bfloat16")
        wrapper.loss_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        wrapper.initialize_count_status(model, 0, 10)
        for part, window in zip(parts, WINDOWS, strict=True):
            wrapper.set_window(*window)
            model.train_step(part, wrapper)
    assert_close(*models)
    for one, other in zip(models[0].parameters(), by_hand(parts).parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.02)


class Batches(Dataset):
    """Samples of which four make a batch; every batch is a window's iteration of one source."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> dict:
        batch, row = batches(10, size=4)[index // 4], index % 4
        sample = MultiTaskDataSample(metainfo=dict(accumulation=WINDOWS[index // 4], source="s"))
        return dict(inputs=batch["inputs"][row], targets=batch["targets"][row], data_samples=sample)


class TinyOfSamples(Tiny):
    def forward(self, inputs: list, targets: list, data_samples: list, mode: str = "loss") -> dict:
        return super().forward(torch.stack(inputs), torch.stack(targets))


class Ends(Hook):
    priority = "LOWEST"

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        self.seen.append(runner.optim_wrapper.should_update())


def run(folder: Path, wrapper: dict, hooks: list) -> torch.nn.Module:
    MODELS.register_module(module=TinyOfSamples, force=True)
    runner = Runner(
        model=dict(type="mtadapt.TinyOfSamples"),
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=4,
            num_workers=0,
            dataset=Batches(),
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="pseudo_collate"),
        ),
        train_cfg=dict(by_epoch=False, max_iters=10),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1, momentum=0.9), **wrapper),
        custom_hooks=hooks,
        default_hooks=dict(checkpoint=None, logger=None),
        default_scope="mtadapt",
        experiment_name=folder.name,
    )
    return runner.train()


def test_a_run_reads_the_windows_from_the_batches(tmp_path: Path):
    ends = Ends()
    model = run(tmp_path, dict(type="SourceAccumulationOptimWrapper"), [dict(type="SourceAccumulationHook"), ends])
    assert ends.seen == ENDS
    assert_close(model, by_hand(batches(10, size=4)))


def test_a_run_with_surgery_over_windows(tmp_path: Path):
    """Each window is one step of surgery on the mean of its batches."""
    model = run(tmp_path, dict(type="GradientSurgeryOptimWrapper"), [dict(type="SourceAccumulationHook")])
    parts, expected = batches(10, size=4), Tiny()
    wrapper = GradientSurgeryOptimWrapper(sgd(expected))
    for start, end in ((0, 3), (3, 4), (4, 5), (5, 9), (9, 10)):
        wrapper.initialize_count_status(expected, end - 1, 10)  # the orders follow from the iteration
        expected.train_step(joined(parts[start:end]), wrapper)
    assert_close(model, expected)


def test_mistakes_are_named(tmp_path: Path):
    with pytest.raises(MTAdaptError, match=r"optim_wrapper\.type='OptimWrapper' knows no windows"):
        run(tmp_path / "a", dict(type="OptimWrapper"), [dict(type="SourceAccumulationHook")])
    model = Tiny()
    with pytest.raises(MTAdaptError, match="accumulative_counts=4: the sources set their own"):
        SourceAccumulationOptimWrapper(sgd(model), accumulative_counts=4).set_window(0, 2)
    wrapper = SourceAccumulationOptimWrapper(sgd(model))
    with pytest.raises(MTAdaptError, match="iteration 1 of 3 where 0 was due"):
        wrapper.set_window(1, 3)
    wrapper.set_window(0, 3)
    with pytest.raises(MTAdaptError, match="iteration 0 of 3 where 1 was due"):
        wrapper.set_window(0, 3)
    samples = [MultiTaskDataSample(metainfo=dict(accumulation=window)) for window in ((0, 1), (0, 2))]
    with pytest.raises(MTAdaptError, match=r"samples of the windows \[\(0, 1\), \(0, 2\)\]"):
        SourceAccumulationHook().before_train_iter(None, 0, dict(data_samples=samples))
