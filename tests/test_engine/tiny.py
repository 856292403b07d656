"""A small model of three tasks on one trunk, whose tasks' gradients conflict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.model import BaseModel
from torch import Tensor, nn

TASKS = ("a", "b", "c")


class Tiny(BaseModel):
    """A trunk that all tasks share, a part that a and b share, and a head of each task."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())
        self.twig = nn.Linear(6, 6)
        self.heads = nn.ModuleDict({name: nn.Linear(6, 2) for name in TASKS})
        # Equal weights and contrary targets: what lowers the loss of a raises that of b.
        self.heads["b"].load_state_dict(self.heads["a"].state_dict())

    def forward(self, inputs: Tensor, targets: Tensor, present: Sequence[str] = TASKS, mode: str = "loss") -> dict:
        """Squared errors of the tasks that are present, and zeros that touch the others' heads."""
        shared = self.trunk(inputs)
        losses = {}
        for number, name in enumerate(TASKS):
            features = shared if name == "c" else torch.tanh(self.twig(shared))
            output = self.heads[name](features)
            if name in present:
                losses[f"{name}.loss"] = (output - targets[:, number]).pow(2).mean()
            else:
                losses[f"{name}.loss_absent"] = output.flatten()[0] * 0
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        total, log_vars = super().parse_losses(losses)
        total.task_losses = {key.split(".")[0]: value for key, value in losses.items()}
        total.absent_tasks = {key.split(".")[0] for key in losses if "absent" in key}
        return total, log_vars


def batches(number: int, size: int = 8) -> list[dict]:
    """Inputs and targets; the targets of the tasks contradict each other."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for _ in range(number):
        inputs = torch.randn(size, 4, generator=generator)
        targets = torch.randn(size, len(TASKS), 2, generator=generator)
        targets[:, 1] = -1.5 * targets[:, 0]
        made.append(dict(inputs=inputs, targets=targets))
    return made


def joined(parts: Sequence[dict]) -> dict:
    """One batch of several."""
    return {key: torch.cat([part[key] for part in parts]) for key in ("inputs", "targets")}


def task_gradients(model: Tiny, batch: dict) -> dict[str, dict[str, Tensor]]:
    """Gradient of each task by a backward pass of its own: parameter name to gradient, where the task reaches it."""
    gradients = {}
    for name in TASKS:
        model.zero_grad()
        model(**batch)[f"{name}.loss"].backward()
        gradients[name] = {
            key: parameter.grad.clone()
            for key, parameter in model.named_parameters()
            if parameter.grad is not None and (key.startswith("trunk") or _reaches(name, key))
        }
    model.zero_grad()
    return gradients


def _reaches(task: str, key: str) -> bool:
    return key.startswith(f"heads.{task}.") or (key.startswith("twig") and task != "c")


def two_processes(worker: Callable, folder: Path, *args: object) -> None:
    """Run ``worker(rank, *args)`` in two processes that are joined by gloo; fail when they wait for each other."""
    processes = mp.start_processes(
        _joined_worker, (worker, str(folder), args), nprocs=2, join=False, start_method="fork"
    )
    assert processes is not None
    for _ in range(90):
        if processes.join(timeout=1):
            return
    for process in processes.processes:
        process.kill()
    pytest.fail("two processes wait for each other")


def _joined_worker(rank: int, worker: Callable, folder: str, args: tuple) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    worker(rank, *args)
    dist.destroy_process_group()
