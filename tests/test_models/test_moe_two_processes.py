"""MultiTaskModel with a small MoEDaViT in two processes whose batches are labelled for different tasks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import SGD

from mtadapt.engine import GradientSurgeryOptimWrapper
from mtadapt.engine.strategies import shared_parts_policy
from mtadapt.models import MultiTaskModel
from tests.models import batch
from tests.test_engine.tiny import two_processes
from tests.test_models.test_moe_routing import gradients, moe_model

#: Labels of both processes in each step.
UNLIKE = [[[("det",)] * 2, [("cls",), ("sem_seg", "det")]], [[("cls",)], [("cls",), ("cls",)]], [[()], [("det",)]]]
#: Without boxes, whose losses are scaled by the number of boxes on all processes.
PLAIN = [[[("sem_seg",)] * 2, [("cls",), ("cls", "sem_seg")]], [[("cls",)], [("sem_seg",)]]]


def steps(model: MultiTaskModel, forward: Any, labelled: Sequence) -> list[dict[str, Tensor]]:
    """Gradients of each step."""
    seen = []
    for step in labelled:
        data = model.data_preprocessor(batch(step), True)
        seen.append(gradients(model, model.parse_losses(forward(**data, mode="loss"))[0]))
    return seen


def worker(rank: int, labelled: list, weight: float, folder: str) -> None:
    model = moe_model(weight=weight)
    seen = steps(model, MMDistributedDataParallel(model), [step[rank] for step in labelled])
    torch.save(dict(gradients=seen, state=model.state_dict()), f"{folder}/{rank}.pth")


def run_two_processes(folder: Path, labelled: list, weight: float) -> dict:
    """What both processes hold in common."""
    two_processes(worker, folder, labelled, weight, str(folder))
    first, second = (torch.load(folder / f"{rank}.pth") for rank in range(2))
    assert first["gradients"][0].keys() == {name for name, _ in moe_model().named_parameters()}
    for one, two in zip([first["state"], *first["gradients"]], [second["state"], *second["gradients"]], strict=True):
        assert one.keys() == two.keys()
        assert all(torch.equal(value, two[name]) for name, value in one.items())
    return first


def test_two_processes_with_other_tasks(tmp_path: Path):
    """Every parameter has a gradient, the same on both, and routers of tasks that are nowhere get zeros."""
    first = run_two_processes(tmp_path, UNLIKE, 0.1)
    for task, present in (("det", (True, False, True)), ("sem_seg", (True, False, False))):
        routers = [name for name in first["gradients"][0] if f".routers.{task}.2.weight" in name]
        for found, there in zip(first["gradients"], present, strict=True):
            assert any(found[name].any() for name in routers) == there, task
    # A batch without any labels counts for the first task.
    updates = {tuple(value.tolist()) for name, value in first["state"].items() if name.endswith("usage.updates")}
    assert updates == {(2, 1, 2)}


def test_two_processes_average_their_gradients(tmp_path: Path):
    found = run_two_processes(tmp_path, PLAIN, 0.0)["gradients"]
    model = moe_model()
    apart = [steps(model, model, [step[rank] for step in PLAIN]) for rank in range(2)]
    for both, one, two in zip(found, *apart, strict=True):
        for name, gradient in both.items():
            torch.testing.assert_close(gradient, (one[name] + two[name]) / 2, rtol=1e-3, atol=1e-5, msg=name)


def surgery_worker(rank: int, folder: str) -> None:
    model = moe_model(weight=0.1)
    wrapper = GradientSurgeryOptimWrapper(SGD(model.parameters(), lr=0.01), method="cagrad")
    parallel = MMDistributedDataParallel(model)
    for step in UNLIKE:
        parallel.train_step(batch(step[rank]), wrapper)
    torch.save(model.state_dict(), f"{folder}/{rank}.pth")


def test_gradient_surgery_in_two_processes(tmp_path: Path):
    two_processes(surgery_worker, tmp_path, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    start = moe_model(weight=0.1).state_dict()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
    assert any(not torch.equal(first[name], start[name]) for name in start if ".routers.sem_seg." in name)


def sharded_worker(rank: int, folder: str) -> None:
    """One process has maps, the other class labels and maps; the router named idle is nobody's."""
    states = []
    for shard in (False, True):
        model = moe_model(("sem_seg", "cls"), weight=0.1, routers=("sem_seg", "cls", "idle"))
        if shard:
            policy = partial(shared_parts_policy, min_num_params=40_000)
            parallel: Any = FullyShardedDataParallel(
                model, device_id=torch.device("cpu"), use_orig_params=True, auto_wrap_policy=policy
            )
            units = [name for name, part in parallel.named_modules() if isinstance(part, FullyShardedDataParallel)]
            assert any("blocks.0" in name for name in units) and not any(".ffn" in name for name in units)
        else:
            parallel = MMDistributedDataParallel(model)
        optimizer = SGD(parallel.parameters(), lr=0.1)
        for step in PLAIN:
            data = model.data_preprocessor(batch(step[rank]), True)
            optimizer.zero_grad()
            model.parse_losses(parallel(**data, mode="loss"))[0].backward()
            optimizer.step()
        states.append({name.removeprefix("module."): value for name, value in parallel.state_dict().items()})
    torch.save(states, f"{folder}/{rank}.pth")


def test_sharded_training_is_that_of_ddp(tmp_path: Path):
    """FSDP fills in the gradients of routers that no row of a process uses."""
    two_processes(sharded_worker, tmp_path, str(tmp_path))
    plain, sharded = torch.load(tmp_path / "0.pth")
    assert plain.keys() == sharded.keys()
    for name, value in plain.items():
        torch.testing.assert_close(sharded[name], value, msg=name)
