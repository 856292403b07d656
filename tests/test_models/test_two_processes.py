"""Two processes whose batches are labelled for different tasks: no waiting for ever, and equal gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from tests import models
from tests.models import batch, multi_task_model

LABELLED = [[("det",), ("det", "cls")], [("sem_seg",), ("sem_seg",)]]
#: Two sources that both label det, and on the first process not all of the first source's images are labelled.
PARTLY = [[(), ("det",), ("det",)], [("det",), ("det",), ("det",)]]


def step(rank: int, detector: str, folder: str, labelled: list, sources: str | None = None) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = multi_task_model(
        det=models.DETECTORS[detector](), sem_seg=models.fpn_head(), cls=models.classifier()
    ).train()
    parallel = DistributedDataParallel(model)
    data = batch(labelled[rank])
    for sample, source in zip(data["data_samples"], sources or (), strict=bool(sources)):
        sample.set_metainfo(dict(source=source, source_tasks=("det", "sem_seg")))
    data = model.data_preprocessor(data, True)
    total, _ = model.parse_losses(parallel(**data, mode="loss"))
    total.backward()
    torch.save({name: parameter.grad for name, parameter in model.named_parameters()}, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


@pytest.mark.parametrize("detector", ["faster_rcnn", "fcos", "dino"])
def test_tasks_differ_between_processes(tmp_path: Path, detector: str):
    gradients = run(tmp_path, detector, LABELLED)
    for task in ("det", "sem_seg", "cls"):
        assert any(gradients[name].any() for name in gradients if name.startswith(f"tasks.{task}.")), task


@pytest.mark.parametrize("labelled", [PARTLY, [[(), (), ()], PARTLY[1]]])
def test_sources_that_are_labelled_in_part(tmp_path: Path, labelled: list):
    """A task's head runs as often on every process, and cls, which no source can label, nowhere."""
    gradients = run(tmp_path, "fcos", labelled, "aab")
    assert any(gradients[name].any() for name in gradients if name.startswith("tasks.det."))
    assert not any(gradients[name].any() for name in gradients if name.startswith("tasks.cls."))


def run(folder: Path, *args) -> dict:
    """Gradients of two processes, which must be equal."""
    detector, *rest = args
    processes = mp.start_processes(step, (detector, str(folder), *rest), nprocs=2, join=False, start_method="fork")
    assert processes is not None
    for _ in range(240):
        if processes.join(timeout=1):
            break
    else:
        for process in processes.processes:
            process.kill()
        pytest.fail("two processes with different tasks wait for each other")
    first, second = (torch.load(folder / f"{rank}.pth") for rank in range(2))
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name]), name
    return first
