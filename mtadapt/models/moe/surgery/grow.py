"""More experts, routers over them, and new heads."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.layers import ExpertBank
from mtadapt.models.moe.router import TaskRouters
from mtadapt.models.moe.settings import LayerExperts
from mtadapt.models.moe.surgery.layers import ExpertLayer, State
from mtadapt.registry import MODELS

#: Bias of new experts in a router that begins at zero. Equal experts are taken in their order, so without it every
#: token would take the first old ones.
_AHEAD = 1e-3


def check_number(number: int, least: int) -> None:
    """Refuse a number of experts.

    Raises:
        MTAdaptError: when it is below ``least``.
    """
    if number < least:
        raise MTAdaptError(f"--experts {number}: write at least {least}")


def with_bank(layer: ExpertLayer, number: int) -> ExpertLayer:
    """The layer with ``number`` experts more, in a bank of their own."""
    experts = LayerExperts((*layer.experts.banks, number), layer.experts.top_k)
    return ExpertLayer(layer.name, layer.setting, experts)


def append_bank(state: Mapping[str, Tensor], layer: ExpertLayer, number: int, copies: Sequence[int] = ()) -> State:
    """Add a bank of new experts to a layer; no router knows them yet.

    Args:
        state: the state dict.
        layer: before.
        number: of the new experts.
        copies: numbers of the experts that they begin as, in turns; random ones without.

    Returns:
        A new state dict; the new experts' columns of the statistics are zero.
    """
    prefix = f"{layer.name}.banks."
    first = {key[len(prefix) + 2 :]: value for key, value in state.items() if key.startswith(f"{prefix}0.")}
    shapes = {name: (value.shape[1], value.shape[2]) for name, value in first.items() if value.dim() == 3}
    bank: Mapping[str, Tensor] = ExpertBank(number, shapes).state_dict()
    if copies:
        index = torch.tensor([copies[place % len(copies)] for place in range(number)])
        banks = range(len(layer.experts.banks))
        bank = {name: torch.cat([state[f"{prefix}{each}.{name}"] for each in banks])[index] for name in first}
    new = dict(state)
    for name, value in bank.items():
        new[f"{prefix}{len(layer.experts.banks)}.{name}"] = value.to(first[name].dtype)
    for name in ("probability", "load"):
        key = f"{layer.name}.usage.{name}"
        new[key] = F.pad(state[key], (0, number))
    return new


def new_router(state: Mapping[str, Tensor], layer: ExpertLayer, like: str) -> State:
    """A router as they begin, over all experts of a layer, those of its last bank a little ahead.

    Args:
        state: the state dict.
        layer: with its new bank.
        like: name of a router of the same width.

    Returns:
        Name inside the router to the values.
    """
    width = state[f"{layer.name}.routers.{like}.0.weight"]
    routers = TaskRouters(width.shape[1], layer.experts, ["new"], {})
    router = {name: value.to(width.dtype) for name, value in routers["new"].state_dict().items()}
    router["2.bias"][layer.numbers[-1]] = _AHEAD
    return router


def grown_router(state: Mapping[str, Tensor], layer: ExpertLayer, start: str, copies: Sequence[int]) -> State:
    """A router over all experts of a layer that continues another.

    Args:
        state: the state dict.
        layer: with its new bank, of copies.
        start: name of the router that it continues, which sees the first experts.
        copies: numbers of the experts that the new ones are copies of, in turns.

    Returns:
        Name inside the router to the values. A copy is as probable as what it was made of; old experts that the other
        router does not see are as probable as the others in the mean.
    """
    prefix = f"{layer.name}.routers.{start}."
    router = {key[len(prefix) :]: value.clone() for key, value in state.items() if key.startswith(prefix)}
    new = layer.numbers[-1]
    for name in ("2.weight", "2.bias"):
        rows = router[name]
        unseen = (
            rows.mean(0, keepdim=True).expand(new[0] - len(rows), *rows.shape[1:]) if new[0] > len(rows) else rows[:0]
        )
        router[name] = torch.cat([rows, unseen, rows[[copies[place % len(copies)] for place in range(len(new))]]])
    return router


def new_head(config: Config, task: str) -> State:
    """Random weights of a task's head: name in the model to the values."""
    with DefaultScope.overwrite_default_scope("mtadapt"):
        model = MODELS.build(copy.deepcopy(config.model))
    # Which lists every parameter in the log.
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel("WARNING")
    try:
        model.tasks[task].init_weights()
    finally:
        logger.setLevel(level)
    return {f"tasks.{task}.{name}": value.clone() for name, value in model.tasks[task].state_dict().items()}
