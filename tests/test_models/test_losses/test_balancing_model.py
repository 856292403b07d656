"""Loss balancers and gradient surgery of a model of stock tasks."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from torch import Tensor
from torch.optim import SGD

from mtadapt.engine import GradientSurgeryOptimWrapper
from mtadapt.errors import MTAdaptError
from mtadapt.models import MultiTaskModel
from mtadapt.models.losses.balancing import task_totals
from mtadapt.registry import MODELS
from tests.models import BACKBONE, NECK, NORMALISE, as_task, batch, classifier, fcos, fpn_head
from tests.test_engine.tiny import two_processes

ALL = dict(det=fcos, sem_seg=fpn_head, cls=classifier)
LABELLED = [("det", "sem_seg"), ("det", "cls"), ("cls",)]
BALANCERS = dict(
    uncertainty=dict(type="UncertaintyWeighting", kinds=dict(det="regression")),
    dwa=dict(type="DWA", interval=1),
    gradnorm=dict(type="GradNorm", alpha=0.5),
)


def build(loss_balancer: dict | None = None, tasks: dict = ALL, **settings: object) -> MultiTaskModel:
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type="mtadapt.MultiTaskModel",
            data_preprocessor=dict(type="mtadapt.MultiTaskDataPreprocessor", **NORMALISE),
            backbone=BACKBONE,
            neck=NECK,
            tasks={name: as_task(make()) for name, make in tasks.items()},
            loss_balancer=loss_balancer,
            **settings,
        )
    )
    model.init_weights()
    return model.train()


def losses_of(model: MultiTaskModel, labelled: list = LABELLED) -> dict[str, Tensor]:
    return model(**model.data_preprocessor(batch(labelled), True), mode="loss")


def test_the_total_carries_the_losses_of_the_tasks():
    model = build(loss_weights=dict(cls=3.0))
    losses = losses_of(model, [("det",), ("det", "cls")])
    total, log_vars = model.parse_losses(losses)
    assert [*total.task_losses] == ["det", "sem_seg", "cls"] and total.absent_tasks == {"sem_seg"}
    torch.testing.assert_close(sum(total.task_losses.values()), total)
    by_name = sum(log_vars[f"det.{name}"].item() for name in ("loss_cls", "loss_bbox", "loss_centerness"))
    assert total.task_losses["det"].item() == pytest.approx(by_name)
    assert total.task_losses["sem_seg"].item() == 0 and total.task_losses["sem_seg"].requires_grad
    plain = losses_of(build(), [("det",), ("det", "cls")])
    torch.testing.assert_close(losses["cls.loss"], 3 * plain["cls.loss"])
    assert model.loss_balancer is None and not any("balancer" in name for name in model.state_dict())


def test_uncertainty_in_the_model():
    plain, model = task_totals(losses_of(build())), build(BALANCERS["uncertainty"])
    with torch.no_grad():
        model.loss_balancer.log_variances["det"].fill_(1.0)
        model.loss_balancer.log_variances["cls"].fill_(-1.0)
    losses = losses_of(model)
    total, log_vars = model.parse_losses(losses)
    expected = (plain["det"] / (2 * math.e) + 0.5) + plain["sem_seg"] + (plain["cls"] * math.e - 0.5)
    torch.testing.assert_close(total, expected)
    assert log_vars["cls.weight"].item() == pytest.approx(math.e)
    total.backward()
    gradient = model.loss_balancer.log_variances["cls"].grad
    torch.testing.assert_close(gradient, (0.5 - plain["cls"] * math.e).detach().reshape(1))


def test_dwa_in_the_model():
    plain, model = losses_of(build()), build(BALANCERS["dwa"])
    for _ in range(2):
        losses_of(model)
    # Rows are in the order of the alphabet: cls, det, sem_seg.
    assert model.loss_balancer.tasks == ("cls", "det", "sem_seg") != tuple(model.tasks)
    model.loss_balancer.ratios.copy_(torch.tensor([2.0, 1.0, 0.5]))
    losses = losses_of(model)
    weights = 3 * torch.softmax(torch.tensor([0.5, 0.25, 1.0]), 0)
    for weight, name in zip(weights, ("det.loss_bbox", "sem_seg.decode.loss_ce", "cls.loss"), strict=True):
        torch.testing.assert_close(losses[name], plain[name] * weight)
    torch.testing.assert_close(losses["sem_seg.decode.acc_seg"], plain["sem_seg.decode.acc_seg"])


@pytest.mark.parametrize("tasks", [("det", "sem_seg", "cls"), ("det", "sem_seg")])
def test_gradnorm_measures_what_all_tasks_read(tasks: tuple[str, ...]):
    """The backbone's features where the classifier reads those, else the neck's."""
    chosen = {name: ALL[name] for name in tasks}
    model, plain = build(BALANCERS["gradnorm"], chosen), build(None, chosen)
    labelled = [("det", "sem_seg"), tasks]
    losses_of(model, labelled)
    kept: list[Tensor] = []
    part = plain.backbone if "cls" in tasks else plain.neck
    part.register_forward_hook(lambda module, args, output: kept.extend(output))
    totals = task_totals(losses_of(plain, labelled))
    for name, total in totals.items():
        number = model.loss_balancer.tasks.index(name)
        gradients = torch.autograd.grad(total, kept, retain_graph=True, allow_unused=True)
        norm = torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm()
        torch.testing.assert_close(model.loss_balancer.norms[number], norm, rtol=1e-4, atol=0)
        torch.testing.assert_close(model.loss_balancer.losses[number], total.detach())


def test_gradnorm_of_images_of_several_sizes():
    """The norms of the groups add up: squares, each with its share of the task's images."""
    chosen = dict(det=fcos, sem_seg=fpn_head)
    single = []
    parts = []
    for size in ((96, 128), (64, 96)):
        model = build(BALANCERS["gradnorm"], chosen)
        part = model.data_preprocessor(batch([("det", "sem_seg")], [size]), True)
        model(**part, mode="loss")
        single.append(model.loss_balancer.norms)
        parts.append(part)
    model = build(BALANCERS["gradnorm"], chosen)
    both = dict(
        inputs=[part["inputs"] for part in parts],
        data_samples=[sample for part in parts for sample in part["data_samples"]],
    )
    model(**both, mode="loss")
    expected = ((single[0] ** 2 + single[1] ** 2) / 4).sqrt()
    torch.testing.assert_close(model.loss_balancer.norms, expected, rtol=1e-4, atol=0)


@pytest.mark.parametrize("method", ["pcgrad", "cagrad"])
def test_surgery_of_the_model(method: str):
    """Gradients of each task by a backward pass of a copy; the factors come from their scalar products."""
    model = build()
    data = batch(LABELLED)
    wrapper = GradientSurgeryOptimWrapper(SGD(model.parameters(), lr=0.1), method=method)
    given: dict[str, Tensor] = {}
    gradients: dict[str, dict[str, Tensor]] = {}
    for task in ALL:
        single = copy.deepcopy(model)
        total, _ = single.parse_losses(single(**single.data_preprocessor(copy.deepcopy(data), True), mode="loss"))
        total.task_losses[task].backward()
        gradients[task] = {name: part.grad for name, part in single.named_parameters() if part.grad is not None}

    def record(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        given.update({name: part.grad.clone() for name, part in model.named_parameters()})

    wrapper.optimizer.register_step_pre_hook(record)
    model.train_step(data, wrapper)
    shared = [name for name in given if sum(name in own for own in gradients.values()) > 1]
    assert {name.split(".")[0] for name in shared} == {"backbone", "neck"}
    vectors = torch.stack(
        [
            torch.cat([own[name].flatten() if name in own else torch.zeros(given[name].numel()) for name in shared])
            for own in gradients.values()
        ]
    ).double()
    factors = torch.from_numpy(wrapper._combine((vectors @ vectors.T).numpy())).float()
    for name, found in given.items():
        owners = [task for task in ALL if name in gradients[task]]
        weights = [float(factors[[*ALL].index(task)]) if name in shared else 1.0 for task in owners]
        expected = sum(weight * gradients[task][name] for weight, task in zip(weights, owners, strict=True))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6, msg=name)


def worker(rank: int, loss_balancer: dict | None, folder: str) -> None:
    """Two steps: the processes have labels of different tasks, in the second one none has any of sem_seg."""
    model = build(loss_balancer)
    parallel = MMDistributedDataParallel(model)
    wrapper = GradientSurgeryOptimWrapper(SGD(model.parameters(), lr=0.01), method="cagrad")
    steps = [[[("det",), ("det", "cls")], [("sem_seg",), ("sem_seg",)]], [[("det",)] * 2, [("cls",), ("det",)]]]
    for labelled in steps:
        parallel.train_step(batch(labelled[rank]), wrapper)
    torch.save(model.state_dict(), f"{folder}/{rank}.pth")


@pytest.mark.parametrize("name", [None, *BALANCERS])
def test_two_processes_stay_equal(tmp_path: Path, name: str | None):
    """Every balancer with gradient surgery under DDP, the tasks differing between the processes."""
    balancer = BALANCERS[name] if name else None
    two_processes(worker, tmp_path, balancer, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    start = build(balancer).state_dict()
    own = [key for key in start if key.startswith("loss_balancer.") and not key.endswith(("sums", "counts"))]
    weights = [key for key, _ in build(balancer).named_parameters()]
    for key in {*own, *weights}:
        assert torch.equal(first[key], second[key]), key
    assert any(not torch.equal(first[key], start[key]) for key in weights if key.startswith("tasks.sem_seg"))
    if own:
        assert any(not torch.equal(first[key], start[key]) for key in own)


def test_unknown_settings():
    with pytest.raises(MTAdaptError, match="names unknown tasks"):
        build(dict(type="UncertaintyWeighting", kinds=dict(depth="regression")))
