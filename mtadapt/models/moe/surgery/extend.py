"""Add a task with new experts to a model whose old parts rest, so that old outputs stay what they are, to the bit."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from mmengine.config import Config
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.surgery.configs import (
    Incoming,
    add_validation,
    check_neck,
    keep_tasks,
    only_router,
    rename_task,
    runner_config,
    set_experts,
    stage,
)
from mtadapt.models.moe.surgery.grow import append_bank, check_number, grown_router, new_head, new_router, with_bank
from mtadapt.models.moe.surgery.layers import Experts, State


def extend(
    config: Config,
    state: Mapping[str, Tensor],
    incoming: Incoming,
    number: int,
    start_from: str | None = None,
    seed: int = 0,
) -> tuple[Config, State]:
    """Make the config and the checkpoint of a training on one task more.

    Every layer gets a bank of new experts, and the new task routers over all experts. The old routers see the old
    experts as before. Old experts, routers, heads, the rest of the backbone, the shared neck and the adapter rest, with
    their buffers. The new config has the other config's schedule, trains on the new task's sources, and validates on
    those of all tasks.

    Args:
        config: of the run that wrote the checkpoint.
        state: its state dict.
        incoming: the new task.
        number: new experts of a layer.
        start_from: task of the model whose routers the new ones continue, with copies of its most used experts as the
            new experts; without it the new routers begin at zero and the new experts with random weights.
        seed: of the random weights.

    Raises:
        MTAdaptError: for fewer than one new expert, a task that the model has already, or another shared neck.
    """
    check_number(number, least=1)
    name = incoming.name
    experts = Experts.of(config)
    if name in config.model.tasks or name in experts.routers:
        raise MTAdaptError(f"--task {name}: the model has this task already; give the new one another name with --as")
    experts.check(state)
    start = None
    if start_from is not None:
        start = only_router(config, start_from)
        experts.check_used(state, [start])
    new = _config(config, incoming)
    grown = {key: value for key, value in state.items() if not key.startswith("loss_balancer.")}
    layers = [with_bank(layer, number) for layer in experts.layers]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for old, layer in zip(experts.layers, layers, strict=True):
            copies = [] if start is None else experts.by_use(state, old, start)
            grown = append_bank(grown, old, number, copies)
            router = (
                new_router(grown, layer, experts.routers[0])
                if start is None
                else grown_router(grown, layer, start, copies)
            )
            grown |= {f"{layer.name}.routers.{name}.{key}": value for key, value in router.items()}
            grown |= _row_more(grown, f"{layer.name}.usage.")
        set_experts(new, layers, {**experts.banks, name: len(layers[0].experts.banks)})
        grown |= new_head(new, name)
    resting = [f"tasks.{task}" for task in config.model.tasks]
    stage(new, "extend", resting, name, len(layers[0].experts.banks) - 1)
    return new, grown


def _config(config: Config, incoming: Incoming) -> Config:
    check_neck(config, incoming)
    new = runner_config(incoming.config)
    keep_tasks(new, [incoming.task])
    rename_task(new, incoming.task, incoming.name)
    add_validation(new, config, incoming.name)
    new.model = runner_config(config).model
    new.model.tasks[incoming.name] = incoming.head
    new.model.pop("loss_balancer", None)
    if incoming.loss_weight is not None:
        new.model.loss_weights = {**(new.model.get("loss_weights") or {}), incoming.name: incoming.loss_weight}
    return new


def _row_more(state: Mapping[str, Tensor], prefix: str) -> State:
    """The statistics of a layer with a row of zeros for the new task."""
    rows = {name: state[f"{prefix}{name}"] for name in ("probability", "load", "updates")}
    return {f"{prefix}{name}": F.pad(value, (0,) * (2 * value.dim() - 1) + (1,)) for name, value in rows.items()}
