"""Backbones whose features depend on the task: one row of their batch for every image and route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe import MoEBackbone, Route
from mtadapt.models.moe.routes import check_route
from mtadapt.structures import MultiTaskDataSample

#: A route as a key: the router's name, or names and shares in the order of the backbone's tasks.
RouteKey = str | tuple[tuple[str, float], ...]


class RoutedRows(NamedTuple):
    """The rows that a group of images gives to a conditioned backbone.

    Attributes:
        images: number of the image of each row.
        keys: route of each row.
        served: tasks that read each row.
    """

    images: list[int]
    keys: list[RouteKey]
    served: list[frozenset[str]]

    def expand(self, images: Tensor) -> Tensor:
        """The image of every row, ``(R, 3, H, W)``; not copied where every image has one row.

        Args:
            images: ``(N, 3, H, W)``.
        """
        if self.images == list(range(len(images))):
            return images
        return images.index_select(0, torch.tensor(self.images, device=images.device))

    @property
    def routes(self) -> Route | list[Route]:
        """What the backbone takes: one route where all rows have the same."""
        routes: list[Route] = [key if isinstance(key, str) else dict(key) for key in self.keys]
        return routes[0] if len(set(self.keys)) == 1 else routes


def plan_rows(wanted: Sequence[Sequence[str]], routing: Mapping[str, RouteKey]) -> RoutedRows:
    """Give every image one row for each route of the tasks that are wanted for it.

    Tasks with equal routes share a row. Rows are in the order of the images where each has one; otherwise the rows of a
    route follow each other, so that a task's features are slices.

    Args:
        wanted: tasks of each image.
        routing: route of every task.
    """
    tasks_of: dict[tuple[int, RouteKey], list[str]] = {}
    for image, tasks in enumerate(wanted):
        for task in tasks:
            tasks_of.setdefault((image, routing[task]), []).append(task)
    rows = [*tasks_of]
    if [image for image, _ in rows] != list(range(len(wanted))):
        order = {key: number for number, key in enumerate(dict.fromkeys(routing.values()))}
        rows.sort(key=lambda row: (order[row[1]], row[0]))
    return RoutedRows(
        [image for image, _ in rows], [key for _, key in rows], [frozenset(tasks_of[row]) for row in rows]
    )


def trained_tasks(samples: Sequence[MultiTaskDataSample], tasks: Iterable[str]) -> list[tuple[str, ...]]:
    """Tasks that each image of a group is trained on: its labels.

    An image without labels needs no row. Where no image of the group has any, the first one gets a task that its source
    can label, because heads and collective calls want features.

    Args:
        samples: one an image.
        tasks: those of the model.
    """
    wanted = [tuple(sample.labelled_tasks) for sample in samples]
    if not any(wanted):
        possible = samples[0].get("source_tasks") or ()
        first = [*tasks]
        wanted[0] = (next((name for name in first if name in possible), first[0]),)
    return wanted


def predicted_tasks(samples: Sequence[MultiTaskDataSample], tasks: Iterable[str]) -> list[str]:
    """Tasks that are predicted for a group: those that the sources label, or all for images without a source."""
    labelled = {name for sample in samples for name in sample.labelled_tasks}
    from_sources = all(sample.get("source") is not None for sample in samples)
    return [name for name in tasks if not (from_sources and labelled) or name in labelled]


def own_tasks(samples: Sequence[MultiTaskDataSample], tasks: Sequence[str]) -> list[tuple[str, ...]]:
    """Of the tasks that are predicted for a group, those of each image.

    Args:
        samples: one an image.
        tasks: as :func:`predicted_tasks` gives them.
    """
    if any(sample.get("source") is None for sample in samples):
        return [tuple(tasks)] * len(samples)
    return [tuple(name for name in tasks if name in sample.labelled_tasks) or tuple(tasks) for sample in samples]


def named_tasks(tasks: str | Sequence[str] | None, number: int, known: Sequence[str]) -> list[tuple[str, ...]]:
    """The task of each image, as a caller names them.

    Args:
        tasks: one name for all images, or one an image.
        number: of the images.
        known: tasks of the model.

    Raises:
        MTAdaptError: for None, an unknown task, or another number of names than images.
    """
    if tasks is None:
        raise MTAdaptError(
            "MultiTaskModel: the features of this backbone depend on the task; give tasks, e.g. "
            f"extract_features(inputs, {known[0]!r}) or model(inputs, mode='tensor', tasks={known[0]!r})"
        )
    names = [tasks] * number if isinstance(tasks, str) else list(tasks)
    if len(names) != number:
        raise MTAdaptError(f"MultiTaskModel: {len(names)} tasks for {number} images; give one name, or one an image")
    unknown = sorted({name for name in names if name not in known})
    if unknown:
        raise MTAdaptError(f"MultiTaskModel: features for unknown tasks {unknown}; tasks: {[*known]}")
    return [(name,) for name in names]


def build_routing(
    backbone: Any, tasks: Sequence[str], routing: Mapping[str, Route] | None
) -> dict[str, RouteKey] | None:
    """Read the setting ``routing``.

    Routers of the backbone that no task uses stop training.

    Args:
        backbone: the backbone.
        tasks: those of the model.
        routing: task to its route, by default its own router.

    Returns:
        Task to route; None for a backbone whose features do not depend on the task, because it has no experts, or one
        router that all tasks use.

    Raises:
        MTAdaptError: for routes with such a backbone, an unknown task, or a router that the backbone does not have.
    """
    given = dict(routing or {})
    conditioned = getattr(backbone, "conditioned", False)
    if not conditioned and not (isinstance(backbone, MoEBackbone) and backbone.moe_layers()):
        if given:
            raise MTAdaptError(
                f"MultiTaskModel: routing={given!r}, but the features of {type(backbone).__name__} do not depend on "
                "the task; leave routing out, or use a backbone with experts"
            )
        return None
    unknown = sorted(set(given) - set(tasks))
    if unknown:
        raise MTAdaptError(f"MultiTaskModel: routing of unknown tasks {unknown}; tasks: {[*tasks]}")
    keys = {task: _key(task, given.get(task), backbone.tasks) for task in tasks}
    used = {name for key in keys.values() for name in _routers(key)}
    for name in backbone.tasks:
        if name not in used:
            for parameter in backbone.task_parameters(name):
                parameter.requires_grad = False
    # With one router for all tasks an image passes once for all of them.
    return keys if conditioned else None


def _key(task: str, route: Route | None, routers: Sequence[str]) -> RouteKey:
    if route is None:
        if task not in routers:
            raise MTAdaptError(
                f"MultiTaskModel: task {task!r} has no router in the backbone, whose tasks are {', '.join(routers)}; "
                f"add it to backbone.tasks, or choose another's: routing=dict({task}={routers[0]!r})"
            )
        return task
    if not isinstance(route, (str, Mapping)):
        raise MTAdaptError(
            f"MultiTaskModel: routing[{task!r}]={route!r}; write the name of a router, or shares of several, e.g. "
            f"{dict.fromkeys(routers[:2], 1 / len(routers[:2]))}"
        )
    try:
        shares = check_route(route, routers)
    except MTAdaptError as error:
        raise MTAdaptError(f"MultiTaskModel: routing[{task!r}]: {error}") from error
    names = [name for name in routers if name in shares]
    return names[0] if len(names) == 1 else tuple((name, float(shares[name])) for name in names)


def _routers(key: RouteKey) -> list[str]:
    return [key] if isinstance(key, str) else [name for name, _ in key]


def router_parameters(backbone: Any, key: RouteKey) -> list[nn.Parameter]:
    """Parameters of the routers of a route."""
    return [parameter for name in _routers(key) for parameter in backbone.task_parameters(name)]


def is_sharded(backbone: nn.Module) -> bool:
    """Whether FSDP gathers parts of the backbone for their own forward pass alone.

    Their parameters cannot be read by others then, and need not be: FSDP fills in the gradients of those that a pass
    has not used.
    """
    return any(isinstance(module, FullyShardedDataParallel) for module in backbone.modules())
