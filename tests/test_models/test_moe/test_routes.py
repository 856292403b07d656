"""Tests of routes."""

from __future__ import annotations

import pytest
import torch

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe import Routes

TASKS = ("cls", "det", "sem_seg")
CPU = torch.device("cpu")


def test_one_route_for_all_rows():
    routes = Routes.build("det", TASKS, 3, CPU)
    assert routes.single == "det" and not routes.mixed
    assert routes.of_task.tolist() == [[0], [1], [0]]


def test_a_backbone_of_one_task_needs_none():
    assert Routes.build(None, ("det",), 3, CPU).single == "det"


def test_equal_routes_are_one():
    assert Routes.build(["cls", {"cls": 1.0}], TASKS, 2, CPU).single == "cls"


def test_a_route_a_row():
    routes = Routes.build(["sem_seg", "cls"], TASKS, 2, CPU)
    assert routes.single is None and not routes.mixed
    assert routes.ids.tolist() == [2, 0]
    assert routes.of_task.tolist() == [[0, 1], [0, 0], [1, 0]]


def test_mixed_routers():
    routes = Routes.build([{"det": 0.25, "cls": 0.75}, "det"], TASKS, 2, CPU)
    assert routes.mixed
    assert routes.rows.tolist() == [0, 0, 1] and routes.ids.tolist() == [1, 0, 1]
    assert routes.shares.tolist() == [[0.25, 0.75, 0], [0, 0, 1]]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "routers of cls, det, sem_seg; say which the images use"),
        ("depth", "no router of task 'depth'; there are cls, det, sem_seg"),
        (["det"], "1 routes for a batch of 2 images"),
        ({"det": 0.5, "cls": 0.4}, "the shares must be positive, with the sum 1"),
        ({"det": 1.5, "cls": -0.5}, "the shares must be positive"),
        ({"det": "all"}, "the shares must be positive"),
        ({}, "the shares must be positive"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(MTAdaptError, match=message):
        Routes.build(given, TASKS, 2, CPU)
