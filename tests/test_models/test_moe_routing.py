"""MultiTaskModel with routers of every task in a small MoEDaViT, against passes of one task at a time."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.optim import SGD

from mtadapt.engine import GradientSurgeryOptimWrapper
from mtadapt.engine.hooks.parameter_table_hook import count_flops
from mtadapt.errors import MTAdaptError
from mtadapt.models import MultiTaskModel
from mtadapt.models.moe import Route
from tests.conditioned import build
from tests.models import CHANNELS, batch

TASKS = ("det", "sem_seg", "cls")
ARCH = dict(embed_dims=CHANNELS[0], depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8])


def davit(tasks: Sequence[str] = TASKS, **changes: Any) -> dict:
    experts = dict(num_experts=6, top_k=2, every=2)
    return dict(type="mtadapt.MoEDaViT", arch=ARCH, tasks=tasks, mlp_experts=experts, drop_path_rate=0.0, **changes)


def moe_model(
    tasks: Sequence[str] = TASKS, routing: Mapping[str, Route] | None = None, weight: float = 0.0, **changes: Any
) -> MultiTaskModel:
    """Routers of unlike tasks choose unlike experts."""
    backbone = davit(changes.pop("routers", tasks), mutual_information=dict(weight=weight))
    model = build(backbone, tasks, routing, **changes)
    generator = torch.Generator().manual_seed(0)
    for layer in model.backbone.moe_layers().values():
        for router in layer.routers.values():
            torch.nn.init.normal_(router[2].weight, generator=generator)
    return model


def loss_of(model: MultiTaskModel, data: dict, task: str | None = None, rows: Sequence[int] | None = None) -> dict:
    """Losses of the batch, or of one task on some of its images alone."""
    samples, images = copy.deepcopy(data["data_samples"]), data["inputs"]
    if task is not None and rows is not None:
        samples, images = [samples[row] for row in rows], images[rows]
        for sample in samples:
            sample.set_metainfo(dict(labelled_tasks=(task,)))
    return model.loss(images, samples)


def gradients(model: MultiTaskModel, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    total.backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize(
    "labelled",
    [[("det",), ("sem_seg",), ("cls",)], [("det", "sem_seg"), ("sem_seg",), ("cls", "det")], [("cls",), ("cls",)]],
    ids=["one", "several", "alternate"],
)
def test_a_batch_is_the_sum_of_its_tasks(labelled: list):
    model = moe_model()
    data = model.data_preprocessor(batch(labelled), True)
    losses = loss_of(model, data)
    found = gradients(model, model.parse_losses(losses)[0])
    assert found.keys() == {name for name, _ in model.named_parameters()}
    expected = {name: torch.zeros_like(value) for name, value in found.items()}
    for task in {task for tasks in labelled for task in tasks}:
        own = loss_of(model, data, task, [row for row, tasks in enumerate(labelled) if task in tasks])
        for key, value in own.items():
            if key.startswith(f"{task}."):
                torch.testing.assert_close(torch.as_tensor(losses[key]), torch.as_tensor(value), msg=key)
        for name, gradient in gradients(model, model.parse_losses(own)[0].task_losses[task]).items():
            expected[name] += gradient
    for name, gradient in found.items():
        scale = float(expected[name].abs().max())
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5 + 1e-4 * scale, msg=name)


def test_routing_losses_and_statistics():
    """The statistics count the tokens of every task's rows, and the loss is in the total."""
    model = moe_model(weight=0.1)
    data = model.data_preprocessor(batch([("det", "sem_seg"), ("sem_seg",)]), True)
    losses = loss_of(model, data)
    names = {name for name in losses if name.startswith("routing.")}
    assert names == {
        f"routing.{name}" for name in ("loss_mutual_information", "mutual_information", "entropy", "max_load")
    }
    total, _ = model.parse_losses(losses)
    torch.testing.assert_close(total, sum(total.task_losses.values()) + losses["routing.loss_mutual_information"])
    for layer in model.backbone.moe_layers().values():
        assert layer.usage.updates.tolist() == [1, 1, 0]
        torch.testing.assert_close(layer.usage.load.sum(1), torch.tensor([1.0, 1.0, 0.0]))
    with torch.no_grad():
        model.eval().predict(data["inputs"])
    assert model.backbone.routing_statistics() == {}


def test_dense_twin_and_single_router():
    """Without experts or with one task nothing depends on the task, and the tasks share every image's pass."""
    one_router = dict.fromkeys(("det", "sem_seg"), "all")
    for backbone, routing in ((dict(davit(), mlp_experts=None), None), (davit(("all",)), one_router)):
        model = build(backbone, ["det", "sem_seg"], routing)
        assert model.routing is None
        rows = []
        model.backbone.register_forward_pre_hook(lambda _, args, rows=rows: rows.append(len(args[0])))
        data = model.data_preprocessor(batch([("det", "sem_seg"), ("det",)]), True)
        losses = loss_of(model, data)
        assert rows == [2] and "routing.loss_mutual_information" not in losses
        assert ("routing.entropy" in losses) == (routing is not None)
        model.parse_losses(losses)[0].backward()
        assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_task_without_a_router_is_refused_where_there_is_one_router():
    with pytest.raises(MTAdaptError, match=r"task 'sem_seg' has no router in the backbone, whose tasks are det"):
        build(davit(("det",)), ["det", "sem_seg"])


@torch.no_grad()
def test_one_pass_predicts_what_passes_of_each_task_do():
    model = moe_model().eval()
    images = torch.randn(2, 3, 96, 128)
    samples = model.predict(images)
    for task in TASKS:
        single = build(davit(), [task], neck=dict(type="mmdet.FPN", in_channels=CHANNELS, out_channels=32, num_outs=5))
        own = {name: value for name, value in model.state_dict().items() if name in single.state_dict()}
        single.load_state_dict(own)
        for sample, expected in zip(samples, single.eval().predict(images), strict=True):
            found, wanted = sample.task(task), expected.task(task)
            if task == "det":
                torch.testing.assert_close(found.pred_instances.scores, wanted.pred_instances.scores)
                torch.testing.assert_close(found.pred_instances.bboxes, wanted.pred_instances.bboxes)
            elif task == "cls":
                torch.testing.assert_close(found.pred_score, wanted.pred_score)
            else:
                assert torch.equal(found.pred_sem_seg.data, wanted.pred_sem_seg.data)


@torch.no_grad()
def test_combined_routes_are_those_of_the_backbone():
    """A swapped router gives the other task's features, and a pass of equal routes is shared."""
    swapped = moe_model(routing=dict(det="sem_seg", sem_seg="det")).eval()
    plain = moe_model().eval()
    images = torch.randn(2, 3, 64, 96)
    for task, other in (("det", "sem_seg"), ("sem_seg", "det"), ("cls", "cls")):
        for found, expected in zip(swapped(images, tasks=task), plain(images, tasks=other), strict=True):
            assert torch.equal(found, expected)
    half: dict[str, Route] = dict(sem_seg=dict(det=0.5, sem_seg=0.5), det=dict(sem_seg=0.5, det=0.5))
    mixed = moe_model(routing=half).eval()
    rows = []
    mixed.backbone.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    mixed.predict(images)
    assert rows == [4]
    direct = mixed.neck(mixed.backbone(images, dict(det=0.5, sem_seg=0.5)))
    for found, expected in zip(mixed(images, tasks="det"), direct, strict=True):
        assert torch.equal(found, expected)
    assert not torch.allclose(direct[0], plain(images, tasks="det")[0])


@torch.no_grad()
def test_flops_grow_with_the_routes():
    """The backbone of three tasks computes three times what it does for one, and twice where two share a route."""
    image = torch.zeros(1, 3, 96, 128)
    flops = {}
    for name, tasks, routing in (
        ("one", ("cls",), None),
        ("three", TASKS, None),
        ("two", TASKS, dict(cls="det")),
    ):
        model = moe_model(tasks, routing, routers=TASKS)
        flops[name] = count_flops(model, lambda model=model: model(image, mode="predict"))
    assert flops["three"]["backbone"] == 3 * flops["one"]["backbone"] > 0
    assert flops["two"]["backbone"] == 2 * flops["one"]["backbone"]
    assert flops["three"]["neck"] == 3 * flops["one"]["neck"]
    assert flops["three"]["tasks.cls"] == flops["one"]["tasks.cls"] == 2 * 64 * 5


@pytest.mark.parametrize("labelled", [[("det",), ("sem_seg",), ("det", "cls")], [("det",), ("sem_seg",)]])
def test_gradient_surgery(labelled: list):
    """PCGrad combines what all tasks reach; routers get the gradient of their task, and the routing's is added."""
    model = moe_model(weight=0.1)
    data = batch(labelled)
    probe = copy.deepcopy(model)
    total, _ = probe.parse_losses(loss_of(probe, probe.data_preprocessor(copy.deepcopy(data), True)))
    parts = [total.task_losses[task] for task in TASKS if task not in total.absent_tasks]
    named = dict(probe.named_parameters())
    rows = [torch.autograd.grad(part, [*named.values()], retain_graph=True, allow_unused=True) for part in parts]
    rows = [dict(zip(named, row, strict=True)) for row in rows]
    common = dict(zip(named, torch.autograd.grad(total.common_loss, [*named.values()], allow_unused=True), strict=True))
    shared = [name for name in named if not name.startswith("tasks.") and ".routers." not in name]
    vectors = [
        np.concatenate(
            [(torch.zeros_like(named[name]) if row[name] is None else row[name]).flatten() for name in shared]
        )
        for row in rows
    ]
    wrapper = GradientSurgeryOptimWrapper(SGD(model.parameters(), lr=0.1), method="pcgrad")
    factors = wrapper._combine(np.array(vectors, dtype=np.float64) @ np.array(vectors, dtype=np.float64).T)
    given: dict[str, Tensor] = {}
    wrapper.optimizer.register_step_pre_hook(
        lambda *_: given.update({name: each.grad.clone() for name, each in model.named_parameters()})
    )
    wrapper._inner_count = -1
    model.train_step(data, wrapper)
    for name, found in given.items():
        weights = factors if name in shared else np.ones(len(rows))
        terms = [float(weight) * row[name] for weight, row in zip(weights, rows, strict=True) if row[name] is not None]
        terms += [common[name]] if common[name] is not None else []
        expected = sum(terms, start=torch.zeros_like(found))
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5, msg=name)
    routers = [name for name in given if ".routers.det." in name and name.endswith("weight")]
    assert any(common[name].any() for name in routers)


def test_mixtures_train_the_routers_of_their_shares():
    model = moe_model(("det",), dict(det=dict(sem_seg=0.25, det=0.75)), routers=TASKS)
    assert model.routing == dict(det=(("det", 0.75), ("sem_seg", 0.25)))
    data = model.data_preprocessor(batch([("det",)]), True)
    found = gradients(model, model.parse_losses(loss_of(model, data))[0])
    for task in TASKS:
        last = [name for name, _ in model.named_parameters() if f".routers.{task}.2.weight" in name]
        assert len(last) == 4
        assert any(name in found and found[name].any() for name in last) == (task != "cls")
    assert len(model.task_parameters("det")) == len([*model.tasks["det"].parameters()]) + 2 * 4 * 4
