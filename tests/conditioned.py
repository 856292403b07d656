"""A small backbone whose features depend on the task, and what it is when a task is alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model import BaseModule, ModuleDict
from torch import Tensor, nn

from mtadapt.models import MultiTaskModel
from mtadapt.models.moe import Route
from mtadapt.registry import MODELS
from tests.models import CHANNELS, NECK, NORMALISE, as_task, classifier, fcos, fpn_head

#: A detector with batch size independent norms, segmentors and a classifier.
HEADS = dict(det=fcos, sem_seg=fpn_head, drivable=lambda: fpn_head(3), cls=classifier)


class Pyramid(BaseModule):
    """Four levels, each a convolution with stride, a tanh, and a linear map of the channels."""

    def __init__(self) -> None:
        super().__init__()
        widths = [3, *CHANNELS]
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 4, stride=4 if level == 0 else 2, padding=0 if level == 0 else 1)
            for level, (before, after) in enumerate(itertools.pairwise(widths))
        )
        self.maps = maps()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        levels = []
        for conv, linear in zip(self.convs, self.maps, strict=True):
            x = torch.tanh(conv(x))
            x = x + linear(x)
            levels.append(x)
        return tuple(levels)


class Conditioned(Pyramid):
    """The same with maps of its own for each task, in the interface of backbones with experts.

    Attributes:
        calls: images and routes of every pass.
    """

    conditioned = True

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.maps = ModuleDict({task: maps() for task in tasks})
        self.calls: list[tuple[Tensor, Any]] = []
        self._used: set[str] = set()

    def forward(self, x: Tensor, routes: Route | Sequence[Route] | None = None) -> tuple[Tensor, ...]:
        self.calls.append((x, routes))
        assert routes is not None
        each = [routes] * len(x) if isinstance(routes, (str, Mapping)) else routes
        assert len(each) == len(x)
        shares = [{route: 1.0} if isinstance(route, str) else dict(route) for route in each]
        levels = []
        for level, conv in enumerate(self.convs):
            x = torch.tanh(conv(x))
            rows = [
                sum((share * self.maps[task][level](row[None]) for task, share in route.items()), start=row[None])
                for row, route in zip(x, shares, strict=True)
            ]
            x = torch.cat(rows)
            levels.append(x)
        self._used |= {task for route in shares for task in route}
        return tuple(levels)

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        return list(self.maps[task].parameters())

    @contextmanager
    def collecting(self) -> Iterator[None]:
        self._used = set()
        yield

    def routing_statistics(self) -> dict[str, Tensor]:
        """As loss a thousandth of the squares of the maps that were used."""
        used, self._used = sorted(self._used), set()
        loss = torch.stack([each.square().sum() for task in used for each in self.task_parameters(task)]).sum()
        return dict(loss_mutual_information=1e-3 * loss, max_load=torch.tensor(float(len(used))))


def maps() -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(channels, channels, 1) for channels in CHANNELS)


def build(
    backbone: dict, tasks: Sequence[str], routing: Mapping[str, Route] | None = None, **settings: Any
) -> MultiTaskModel:
    """A seeded model in training mode."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type="mtadapt.MultiTaskModel",
            data_preprocessor=dict(type="mtadapt.MultiTaskDataPreprocessor", **NORMALISE),
            backbone=backbone,
            neck=settings.pop("neck", NECK),
            tasks={name: as_task(HEADS[name]()) for name in tasks},
            routing=routing,
            **settings,
        )
    )
    model.init_weights()
    return model.train()


def conditioned(
    *tasks: str, routing: Mapping[str, Route] | None = None, routers: Sequence[str] | None = None, **settings: Any
) -> MultiTaskModel:
    """A model whose backbone has maps of its own for each task, or for ``routers``."""
    return build(dict(type=Conditioned, tasks=routers or tasks), tasks, routing, **settings)


def alone(model: MultiTaskModel, task: str, route: Route | None = None) -> MultiTaskModel:
    """The model of one task, whose backbone knows the maps of its route and no others.

    The maps are linear, so a mixture of them is the map of the mixed weights.
    """
    route = route or task
    shares = {route: 1.0} if isinstance(route, str) else dict(route)
    single = build(dict(type=Pyramid), [task])
    weights = model.state_dict()
    for name, value in single.state_dict().items():
        if name.startswith("backbone.maps."):
            parts = [share * weights[name.replace("maps.", f"maps.{router}.")] for router, share in shares.items()]
            value.copy_(sum(parts))
        else:
            value.copy_(weights[name])
    return single
