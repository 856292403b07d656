"""Use of experts, against closed forms on buffers made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib
import numpy as np
import pytest
import torch
from torch import Tensor

from mtadapt.registry import MODELS
from mtadapt.visualization.expert_usage import LayerUsage, draw_expert_usage, expert_usage


def layer_state(
    probability: Sequence[Sequence[float]],
    load: Sequence[Sequence[float]] | None = None,
    prefix: str = "backbone.blocks.1.ffn",
    tasks: Sequence[str] = ("sem_seg", "cls"),
    seen: Sequence[int] | None = None,
    visible: Sequence[int] | None = None,
    banks: Sequence[int] | None = None,
) -> dict[str, Tensor]:
    """The entries of a layer of width 8 as a checkpoint has them."""
    table = torch.tensor(probability)
    num_experts = table.shape[1]
    state = {}
    for bank, size in enumerate(banks or [num_experts]):
        state[f"{prefix}.banks.{bank}.w1"] = torch.zeros(size, 8, 3)
        state[f"{prefix}.banks.{bank}.b1"] = torch.zeros(size, 3)
    for task, outputs in zip(tasks, visible or [num_experts] * len(tasks), strict=True):
        state[f"{prefix}.routers.{task}.0.weight"] = torch.zeros(2, 8)
        state[f"{prefix}.routers.{task}.0.bias"] = torch.zeros(2)
        state[f"{prefix}.routers.{task}.2.weight"] = torch.zeros(outputs, 2)
        state[f"{prefix}.routers.{task}.2.bias"] = torch.zeros(outputs)
    state[f"{prefix}.usage.probability"] = table
    state[f"{prefix}.usage.load"] = table.clone() if load is None else torch.tensor(load)
    state[f"{prefix}.usage.updates"] = torch.tensor(seen or [3] * len(tasks))
    return state


def only_layer(state: dict[str, Tensor]) -> LayerUsage:
    (layer,) = expert_usage(state)
    return layer


def test_tasks_with_experts_of_their_own_have_all_the_information():
    """Each of two tasks uses its half of four experts evenly: log 2 of the task, log 2 of the expert."""
    layer = only_layer(layer_state([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]]))
    assert layer.mutual_information == pytest.approx(math.log(2))
    assert layer.entropies == pytest.approx(dict(sem_seg=math.log(2), cls=math.log(2)))


def test_tasks_that_use_the_experts_alike_have_none():
    layer = only_layer(layer_state([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]]))
    assert layer.mutual_information == pytest.approx(0, abs=1e-7)
    expected = -sum(p * math.log(p) for p in (0.7, 0.2, 0.1))
    assert layer.entropies == pytest.approx(dict(sem_seg=expected, cls=expected))


def test_mutual_information_is_that_of_the_definition_without_tasks_that_were_not_seen():
    table = torch.rand(4, 7, generator=torch.Generator().manual_seed(0)).softmax(1)
    tasks = ["cls", "det", "depth", "sem_seg"]
    seen = [0, 1, 3]
    state = layer_state(table.tolist(), tasks=tasks, seen=[5, 1, 0, 2])
    expected = 0.0
    for t in seen:
        for e in range(7):
            joint = float(table[t, e]) / len(seen)
            margin = sum(float(table[other, e]) for other in seen) / len(seen)
            expected += joint * math.log(joint / (margin / len(seen)))
    layer = only_layer(state)
    assert layer.mutual_information == pytest.approx(expected, rel=1e-5)
    assert layer.entropies["depth"] is None and layer.as_dict()["entropy"]["depth"] is None
    assert only_layer(layer_state(table.tolist(), tasks=tasks, seen=[0] * 4)).mutual_information == 0


def test_layers_tasks_and_banks_are_those_of_the_state_dict():
    table = [[0.5, 0.25, 0.25, 0.0], [0.0, 0.5, 0.25, 0.25]]
    state = {
        **layer_state(table, prefix="backbone.blocks.0.ffn", visible=(3, 4), banks=(3, 1)),
        "backbone.blocks.0.norm.weight": torch.ones(8),
        **layer_state(table, load=[[1.0, 0, 0, 0], [0, 0, 0, 0.5]], prefix="backbone.blocks.10.ffn"),
    }
    first, second = expert_usage(state)
    assert (first.name, second.name) == ("backbone.blocks.0.ffn", "backbone.blocks.10.ffn")
    assert first.tasks == ("sem_seg", "cls")
    assert first.banks == (3, 1) and first.visible.tolist() == [3, 4]
    assert second.banks == (4,) and second.visible.tolist() == [4, 4]
    assert second.as_dict()["load"] == dict(sem_seg=[1, 0, 0, 0], cls=[0, 0, 0, 1]), "rows sum to 1"
    assert second.as_dict()["probability"] == dict(sem_seg=table[0], cls=table[1])
    assert expert_usage({"backbone.blocks.0.norm.weight": torch.ones(8)}) == []


def test_a_trained_layer_is_read_as_it_counts_itself():
    """The names are those of real layers, and the information is what their loss is made of."""
    torch.manual_seed(0)
    settings = dict(tasks=["det", "cls"], mlp_experts=dict(num_experts=[[3, 2]], top_k=2, every=6))
    backbone = MODELS.build(
        dict(
            type="mtadapt.MoEDaViT",
            arch=dict(embed_dims=8, depths=[1, 1, 1], num_heads=[1, 1, 1]),
            out_indices=(2,),
            mutual_information=dict(momentum=0.0),
            task_banks=dict(det=1),
            **settings,
        )
    )
    assert not only_layer(backbone.state_dict()).seen.any()
    (layer,) = backbone.moe_layers().values()
    for router in layer.routers.values():
        torch.nn.init.normal_(router[2].weight, std=20.0)
    with backbone.collecting():
        backbone(torch.randn(4, 3, 32, 32), ["cls", "det", "det", "cls"])
    told = backbone.routing_statistics()["mutual_information"]
    usage = only_layer(backbone.state_dict())
    assert usage.tasks == ("det", "cls") and usage.banks == (3, 2) and usage.visible.tolist() == [3, 5]
    assert usage.load.sum(1) == pytest.approx([1, 1]) and not usage.load[0, 3:].any()
    assert usage.mutual_information == pytest.approx(float(told), abs=1e-6) and told > 0.01


def places(picture: np.ndarray, value: float) -> np.ndarray:
    """``(P, 2)`` rows and columns of the pixels with the colour of a value, 1 being the largest, without the scale."""
    colour = np.array(matplotlib.colormaps["viridis"](value, bytes=True)[:3])
    width = int(0.9 * picture.shape[1])
    return np.argwhere((picture[:, :width] == colour).all(-1))


def test_rows_of_the_picture_are_tasks_and_columns_experts():
    loads = np.zeros((2, 20))
    loads[0, 2] = loads[1, 17] = 1.0
    mean = np.full((2, 20), 0.05)
    (layer,) = expert_usage(layer_state(mean.tolist(), load=loads.tolist()))
    picture = draw_expert_usage([layer], "title")
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    bright = places(picture, 1.0)
    left, right = bright[bright[:, 1] < picture.shape[1] / 2], bright[bright[:, 1] >= picture.shape[1] / 2]
    assert len(left) > 100 and len(right) > 100
    cell = np.ptp(left[:, 1]) + 1
    assert right[:, 1].min() - left[:, 1].min() == pytest.approx(15 * cell, abs=15), "experts 2 and 17"
    assert left[:, 0].max() < right[:, 0].min(), "the first task stands above"
    assert len(places(picture, 0.0)) == pytest.approx(38 / 2 * len(bright), rel=0.1)
    even = draw_expert_usage([layer], of="probability")
    assert len(places(even, 1.0)) == pytest.approx(20 * len(bright), rel=0.1), "all are the largest"


def test_what_a_router_cannot_choose_is_hatched():
    table = [[0.5, 0.5, 0.0, 0.0] + 16 * [0.0], 20 * [0.05]]
    whole, hidden, untrained = (
        expert_usage(layer_state(table, visible=visible, seen=seen))
        for visible, seen in (((20, 20), (1, 1)), ((2, 20), (1, 1)), ((2, 20), (1, 0)))
    )
    area = len(places(draw_expert_usage(whole), 1.0)) / 2  # of a cell
    assert len(places(draw_expert_usage(whole), 0.0)) == pytest.approx(18 * area, rel=0.1)
    assert not len(places(draw_expert_usage(hidden), 0.0))
    assert len(places(draw_expert_usage(hidden), 0.1)) == pytest.approx(20 * area, rel=0.1)
    # Its row is hatched; the wider label leaves less room to the cells.
    assert not len(places(draw_expert_usage(untrained), 0.1))


def test_pictures_grow_with_tasks_and_layers():
    state = {}
    for number in range(12):
        state.update(layer_state(torch.full((3, 64), 1 / 64).tolist(), prefix=f"b.{number}.ffn", tasks="abc"))
    layers = expert_usage(state)
    one, several = draw_expert_usage(layers[:1]), draw_expert_usage(layers)
    assert several.shape[0] > 3 * one.shape[0] and several.shape[1] > 1.5 * one.shape[1]
    assert max(several.shape) < 2500
