"""Which rows a group of images gives to a backbone whose features depend on the task."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.routed_rows import (
    RoutedRows,
    build_routing,
    named_tasks,
    own_tasks,
    plan_rows,
    predicted_tasks,
    router_parameters,
    trained_tasks,
)
from mtadapt.structures import MultiTaskDataSample

HALVES = (("a", 0.5), ("b", 0.5))
ROUTING = dict(det="a", sem_seg="b", drivable="b", mix=HALVES)


def images_and_tasks(rows: RoutedRows) -> list[tuple[int, str]]:
    return [(image, "+".join(sorted(tasks))) for image, tasks in zip(rows.images, rows.served, strict=True)]


@pytest.mark.parametrize(
    ("wanted", "rows", "routes"),
    [
        ([("det",), ("det",)], [(0, "det"), (1, "det")], "a"),
        ([("sem_seg",), ("drivable",)], [(0, "sem_seg"), (1, "drivable")], "b"),
        ([("sem_seg",), ("det",), ("drivable",)], [(0, "sem_seg"), (1, "det"), (2, "drivable")], ["b", "a", "b"]),
        ([("drivable", "sem_seg")], [(0, "drivable+sem_seg")], "b"),
        (
            [("sem_seg", "det"), ("det", "drivable")],
            [(0, "det"), (1, "det"), (0, "sem_seg"), (1, "drivable")],
            ["a", "a", "b", "b"],
        ),
        ([(), ("mix",), ("det", "mix")], [(2, "det"), (1, "mix"), (2, "mix")], ["a", *[dict(a=0.5, b=0.5)] * 2]),
        ([("mix",), ("mix",)], [(0, "mix"), (1, "mix")], dict(a=0.5, b=0.5)),
    ],
)
def test_rows_of_images_and_routes(wanted: list, rows: list, routes: Any):
    plan = plan_rows(wanted, ROUTING)
    assert images_and_tasks(plan) == rows and plan.routes == routes


def test_images_are_copied_only_where_need_be():
    images = torch.arange(3.0).reshape(3, 1, 1, 1)
    assert plan_rows([("det",), ("sem_seg",), ("det",)], ROUTING).expand(images) is images
    assert plan_rows([("det",), (), ("mix", "det")], ROUTING).expand(images).flatten().tolist() == [0, 2, 2]
    assert plan_rows([("det",), ()], ROUTING).expand(images[:2]).flatten().tolist() == [0]


def sample(*labelled: str, **meta: Any) -> MultiTaskDataSample:
    return MultiTaskDataSample(metainfo=dict(labelled_tasks=labelled, **meta))


def test_images_without_labels_are_not_trained_on():
    tasks = ["det", "sem_seg"]
    assert trained_tasks([sample(), sample("sem_seg", "det")], tasks) == [(), ("sem_seg", "det")]
    assert trained_tasks([sample(), sample()], tasks) == [("det",), ()]
    source = dict(source="s", source_tasks=("depth", "sem_seg"))
    assert trained_tasks([sample(**source), sample(**source)], tasks) == [("sem_seg",), ()]


def test_predictions_of_each_image():
    tasks = ["det", "sem_seg", "drivable"]
    of_sources = [sample("det", source="a"), sample("drivable", source="b"), sample(source="b")]
    assert predicted_tasks(of_sources, tasks) == ["det", "drivable"]
    assert own_tasks(of_sources, ["det", "drivable"]) == [("det",), ("drivable",), ("det", "drivable")]
    mixed = [sample("det"), sample("drivable", source="b")]
    assert predicted_tasks(mixed, tasks) == tasks
    assert own_tasks(mixed, tasks) == [tuple(tasks)] * 2
    assert predicted_tasks([sample(source="a")], tasks) == tasks


def test_named_tasks():
    assert named_tasks("det", 2, ["det", "cls"]) == [("det",), ("det",)]
    assert named_tasks(["cls", "det"], 2, ["det", "cls"]) == [("cls",), ("det",)]
    with pytest.raises(MTAdaptError, match=r"give tasks, e\.g\. extract_features\(inputs, 'det'\)"):
        named_tasks(None, 2, ["det"])
    with pytest.raises(MTAdaptError, match="1 tasks for 2 images"):
        named_tasks(["det"], 2, ["det"])
    with pytest.raises(MTAdaptError, match=r"features for unknown tasks \['lane'\]; tasks: \['det'\]"):
        named_tasks("lane", 2, ["det"])


class Backbone(nn.Module):
    """Nothing but routers."""

    conditioned = True
    tasks = ("a", "b", "det")

    def __init__(self) -> None:
        super().__init__()
        self.routers = nn.ModuleDict({name: nn.Linear(1, 1) for name in self.tasks})

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return [*self.routers[task].parameters()]


def test_routes_of_the_tasks():
    backbone = Backbone()
    routing = build_routing(backbone, ["det", "x", "y", "z"], dict(x="b", y=dict(b=0.75, a=0.25), z=dict(b=1.0)))
    assert routing == dict(det="det", x="b", y=(("a", 0.25), ("b", 0.75)), z="b")
    assert router_parameters(backbone, routing["y"]) == [
        *backbone.routers["a"].parameters(),
        *backbone.routers["b"].parameters(),
    ]
    assert all(parameter.requires_grad for parameter in backbone.parameters())
    assert build_routing(SimpleNamespace(), ["det"], None) is None
    assert build_routing(SimpleNamespace(conditioned=False), ["det"], {}) is None


def test_routers_without_a_task_do_not_train():
    backbone = Backbone()
    build_routing(backbone, ["det", "x"], dict(x="b"))
    frozen = {name for name, parameter in backbone.named_parameters() if not parameter.requires_grad}
    assert frozen == {"routers.a.weight", "routers.a.bias"}


@pytest.mark.parametrize(
    ("backbone", "tasks", "routing", "message"),
    [
        (nn.Linear(1, 1), ["det"], dict(det="a"), "routing={'det': 'a'}, but the features of Linear do not depend on"),
        (Backbone(), ["det"], dict(lane="a"), r"routing of unknown tasks \['lane'\]; tasks: \['det'\]"),
        (
            Backbone(),
            ["det"],
            dict(det="c"),
            r"routing\['det'\]: route 'c': no router of task 'c'; there are a, b",
        ),
        (Backbone(), ["det"], dict(det=dict(a=0.5, c=0.5)), r"routing\['det'\]: route .*: no router of task 'c'"),
        (Backbone(), ["det"], dict(det=dict(a=0.5, b=0.6)), "the shares must be positive, with the sum 1"),
        (
            Backbone(),
            ["det"],
            dict(det=["a", "b"]),
            r"routing\['det'\]=\['a', 'b'\]; write the name of a router",
        ),
        (
            Backbone(),
            ["det", "sem_seg"],
            None,
            r"task 'sem_seg' has no router in the backbone, whose tasks are a, b, det; .* routing=dict\(sem_seg='a'\)",
        ),
    ],
)
def test_mistakes(backbone: nn.Module, tasks: list[str], routing: Any, message: str):
    with pytest.raises(MTAdaptError, match=message):
        build_routing(backbone, tasks, routing)
