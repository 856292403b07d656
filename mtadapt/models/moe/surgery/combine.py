"""Run tasks of one model by the routers of others, or by mixtures, without any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mmengine.config import Config
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.routes import Route, check_route
from mtadapt.models.moe.surgery.configs import check_task, runner_config
from mtadapt.models.moe.surgery.layers import Experts, State


def parse_routes(texts: Sequence[str]) -> dict[str, Route]:
    """Read ``--routes det=sem_seg sem_seg=0.5*det+0.5*sem_seg``.

    Returns:
        Task to a router, or to the shares of several.

    Raises:
        MTAdaptError: for another form.
    """
    routes: dict[str, Route] = {}
    for text in texts:
        task, equals, route = text.partition("=")
        parts = [part.split("*") for part in route.split("+")]
        if not task or not equals or any(len(part) > 2 or not all(part) for part in parts):
            raise MTAdaptError(f"--routes {text}: write TASK=ROUTER or TASK=0.5*ROUTER+0.5*ROUTER")
        if task in routes:
            raise MTAdaptError(f"--routes {text}: task {task!r} has two routes; write one")
        routes[task] = route if parts == [[route]] else _shares(text, parts)
    return routes


def _shares(text: str, parts: Sequence[Sequence[str]]) -> dict[str, float]:
    """Shares of routers from ``[['0.5', 'det'], ['0.5', 'sem_seg']]``; one without a number has the share 1."""
    shares: dict[str, float] = {}
    try:
        for part in parts:
            shares[part[-1]] = shares.get(part[-1], 0.0) + float(part[0] if len(part) == 2 else 1)
    except ValueError as error:
        raise MTAdaptError(f"--routes {text}: a share is no number ({error})") from error
    return shares


def combine(config: Config, state: Mapping[str, Tensor], routes: Mapping[str, Route]) -> tuple[Config, State]:
    """Write routes into the config of a model; the weights stay as they are.

    Tasks with equal routes share one pass of an image through the backbone.

    Args:
        config: of the run that wrote the checkpoint.
        state: its state dict.
        routes: task to a router, or to the shares of several; the others keep theirs.

    Raises:
        MTAdaptError: for an unknown task or router, or shares that are not positive with the sum 1.
    """
    experts = Experts.of(config)
    experts.check(state)
    for task, route in routes.items():
        check_task(config, task, "--routes")
        try:
            check_route(route, experts.routers)
        except MTAdaptError as error:
            raise MTAdaptError(f"--routes {task}: {error}") from error
    new = runner_config(config)
    if len(experts.routers) == 1:
        raise MTAdaptError(f"--routes: the model has one router, of {experts.routers[0]}; there is nothing to combine")
    new.model.routing = {**(new.model.get("routing") or {}), **routes}
    return new, dict(state)
