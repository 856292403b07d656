"""Adapt a model with experts to one task: all but its routers, its head and a few experts rests."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from mmengine.config import Config
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.settings import LayerExperts
from mtadapt.models.moe.surgery.configs import (
    Incoming,
    check_neck,
    check_prompts,
    check_task,
    keep_tasks,
    only_router,
    rename_task,
    runner_config,
    set_experts,
    stage,
)
from mtadapt.models.moe.surgery.grow import append_bank, check_number, grown_router, new_head, with_bank
from mtadapt.models.moe.surgery.layers import ExpertLayer, Experts, State, regroup, rename_router

#: Which experts train.
CHOICES = ("least", "most", "new")


def adapt(
    config: Config,
    state: Mapping[str, Tensor],
    task: str | Incoming,
    choice: str = "least",
    number: int = 0,
    start_from: str | None = None,
    seed: int = 0,
) -> tuple[Config, State]:
    """Make the config and the checkpoint of a training on one task.

    The experts that train move into a bank of their own, and the routers' rows with them, so that outputs stay what
    they were. Everything else of the backbone, the shared neck and the adapter rest; routers, that bank and the head
    train. Other tasks are left out.

    Args:
        config: of the run that wrote the checkpoint.
        state: its state dict.
        task: one of the model's own, or one that comes from another config, whose schedule is taken then. Its head
            begins with random weights, unless the model has the same one.
        choice: ``least`` used, ``most`` used or ``new`` experts, see :func:`~.grow.append_bank`.
        number: how many experts train in every layer.
        start_from: task of the model whose routers the new task begins with, and by which the use of the experts is
            told; by default the task of the same name.
        seed: of the random weights.

    Raises:
        MTAdaptError: for an unknown task, a number of experts that a layer does not have, or another shared neck.
    """
    if choice not in CHOICES:
        raise MTAdaptError(f"--train {choice}: unknown; known: {', '.join(CHOICES)}")
    incoming = task if isinstance(task, Incoming) else None
    name = task.name if isinstance(task, Incoming) else task
    if incoming is None:
        check_task(config, name)
    if start_from is None and name not in config.model.tasks:
        raise MTAdaptError(
            f"--task {name} is new to the model; say with --start-from whose routers it continues: "
            f"{', '.join(config.model.tasks)}"
        )
    router = only_router(config, start_from or name)
    experts = Experts.of(config)
    experts.check(state)
    check_number(number, least=1 if choice == "new" else 0)
    if number and choice != "new":
        experts.check_used(state, [router])
    new = _config(config, name, incoming)
    left = {key: value for key, value in state.items() if not key.startswith(("tasks.", "loss_balancer."))}
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        left, experts = _alone(left, experts, router)
        layers = [*experts.layers]
        for place, layer in enumerate(experts.layers if number else ()):
            left, layers[place] = _split(left, experts, layer, choice, number)
        left = rename_router(left, router, name)
        set_experts(new, layers, {name: len(layers[0].experts.banks)})
        if incoming is None or incoming.head == config.model.tasks.get(name):
            left |= {key: value for key, value in state.items() if key.startswith(f"tasks.{name}.")}
        else:
            left |= new_head(new, name)
    stage(new, "adapt", [], name, 1 if number else None)
    return new, left


def _config(config: Config, name: str, incoming: Incoming | None) -> Config:
    if incoming is None:
        new = runner_config(config)
        keep_tasks(new, [name])
        head, weight = new.model.tasks[name], (new.model.get("loss_weights") or {}).get(name)
    else:
        check_neck(config, incoming)
        new = runner_config(incoming.config)
        keep_tasks(new, [incoming.task])
        rename_task(new, incoming.task, name)
        new.model = runner_config(config).model
        head, weight = incoming.head, incoming.loss_weight
    check_prompts(config, [name])
    new.model.tasks = {name: head}
    for key in ("loss_weights", "routing", "loss_balancer"):
        new.model.pop(key, None)
    if weight is not None:
        new.model.loss_weights = {name: weight}
    return new


def _alone(state: State, experts: Experts, router: str) -> tuple[State, Experts]:
    """Leave one router and the experts that it sees, in one bank."""
    banks = [[[*range(layer.experts.visible(experts.banks[router]))]] for layer in experts.layers]
    for layer, chosen in zip(experts.layers, banks, strict=True):
        state = regroup(state, experts, layer, chosen, {router: 1})
    layers = experts.with_banks([[len(bank) for bank in chosen] for chosen in banks])
    return state, Experts(tuple(layers), (router,), {router: 1})


def _split(state: State, experts: Experts, layer: ExpertLayer, choice: str, number: int) -> tuple[State, ExpertLayer]:
    """Give the experts of a layer that train a bank of their own."""
    (router,) = experts.routers
    order = experts.by_use(state, layer, router)
    if choice == "new":
        state, layer = append_bank(state, layer, number, order), with_bank(layer, number)
        grown = grown_router(state, layer, router, order)
        return {**state, **{f"{layer.name}.routers.{router}.{name}": value for name, value in grown.items()}}, layer
    if number >= len(order):
        raise MTAdaptError(
            f"--experts {number}: {layer.name} has {len(order)} experts, of which at least one has to rest"
        )
    moved = sorted(order[:number] if choice == "most" else order[len(order) - number :])
    banks = [[expert for expert in sorted(order) if expert not in moved], moved]
    sizes = LayerExperts(tuple(len(bank) for bank in banks), layer.experts.top_k)
    return regroup(state, experts, layer, banks, {router: 2}), ExpertLayer(layer.name, layer.setting, sizes)
