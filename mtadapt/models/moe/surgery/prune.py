"""Take some tasks with the experts that they use out of a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from mmengine.config import Config
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.surgery.configs import (
    check_prompts,
    check_task,
    drop_training,
    keep_tasks,
    labels,
    routers_of,
    runner_config,
    set_experts,
)
from mtadapt.models.moe.surgery.layers import ExpertLayer, Experts, State, regroup


def prune(
    config: Config,
    state: Mapping[str, Tensor],
    tasks: Sequence[str],
    threshold: float = 0.0,
    keep_top_k: bool = False,
) -> tuple[Config, State]:
    """Keep the tasks, their routers and, in each layer, the experts that one of these routers uses enough.

    Heads, routers, sources and metrics of the other tasks are left out, and so are a ``loss_balancer`` and, where none
    of its data is labelled for the tasks, the training. A removed expert
    is as one whose logit is minus infinity: the probabilities of the others grow accordingly.

    Args:
        config: of the run that wrote the checkpoint.
        state: its state dict.
        tasks: names of the tasks to keep.
        threshold: smallest share of the picks of a router with which an expert is kept.
        keep_top_k: where fewer than ``top_k`` experts would be left, keep the most used ones.

    Returns:
        Config and state dict of the smaller model. With one router left all its experts are in one bank.

    Raises:
        MTAdaptError: for an unknown task, a threshold that leaves fewer than ``top_k`` experts, or statistics that are
            missing.

    Reference:
        Mod-Squad (CVPR 2023), section 3.4. Ours: experts are kept by their share of the picks, which is what they are
        used for, and all layers have the same threshold.
    """
    for task in tasks:
        check_task(config, task, "--tasks")
    if not 0 <= threshold < 1:
        raise MTAdaptError(f"--threshold {threshold}: write a share of the picks, from 0 to below 1")
    experts = Experts.of(config)
    experts.check(state)
    names = {router for task in tasks for router in routers_of(config, task)}
    routers = [router for router in experts.routers if router in names]
    if threshold > 0:
        experts.check_used(state, routers)
    new = _config(config, tasks, len(routers))
    kept = {key: value for key, value in state.items() if _of_tasks(key, tasks)}
    chosen = [_chosen(state, experts, layer, routers, threshold, keep_top_k) for layer in experts.layers]
    _check(state, experts, routers, chosen, threshold)
    seen = {router: experts.banks[router] for router in routers}
    if len(set(seen.values())) == 1:
        # Nobody sees less than all that is left, so it is one bank.
        chosen = [[[number for bank in banks[: max(seen.values())] for number in bank]] for banks in chosen]
        seen = dict.fromkeys(seen, 1)
    chosen = [banks[: max(seen.values())] for banks in chosen]
    for layer, banks in zip(experts.layers, chosen, strict=True):
        kept = regroup(kept, experts, layer, banks, seen)
    set_experts(new, experts.with_banks([[len(bank) for bank in banks] for banks in chosen]), seen)
    return new, kept


def _config(config: Config, tasks: Sequence[str], num_routers: int) -> Config:
    new = runner_config(config)
    if not labels(new.get("train_dataloader"), tasks):
        # As of an extended model, which trains on the new task alone.
        drop_training(new)
    keep_tasks(new, tasks)
    check_prompts(config, tasks)
    model = new.model
    model.tasks = {name: copy.deepcopy(head) for name, head in model.tasks.items() if name in tasks}
    model.pop("loss_balancer", None)
    for key in ("loss_weights", "routing"):
        if model.get(key):
            model[key] = {name: value for name, value in model[key].items() if name in tasks}
    if not model.get("routing") or num_routers == 1:
        model.pop("routing", None)
    return new


def _of_tasks(key: str, tasks: Sequence[str]) -> bool:
    parts = key.split(".")
    return parts[0] != "loss_balancer" and (parts[0] != "tasks" or parts[1] in tasks)


def _most_loaded(state: Mapping[str, Tensor], experts: Experts, layer: ExpertLayer, routers: Sequence[str]) -> Tensor:
    """The largest share that one of the routers gives each expert, ``(E,)``."""
    return torch.stack([experts.load(state, layer, router) for router in routers]).amax(0)


def _chosen(
    state: Mapping[str, Tensor],
    experts: Experts,
    layer: ExpertLayer,
    routers: Sequence[str],
    threshold: float,
    keep_top_k: bool,
) -> list[list[int]]:
    """Numbers of the experts that are kept in each bank."""
    kept = set((_most_loaded(state, experts, layer, routers) >= threshold).nonzero()[:, 0].tolist())
    for router in routers if keep_top_k else ():
        order = experts.by_use(state, layer, router)
        short = layer.experts.top_k - len(kept & set(order))
        kept |= set([number for number in order if number not in kept][: max(short, 0)])
    return [[number for number in bank if number in kept] for bank in layer.numbers]


def _check(
    state: Mapping[str, Tensor],
    experts: Experts,
    routers: Sequence[str],
    chosen: Sequence[Sequence[Sequence[int]]],
    threshold: float,
) -> None:
    """Refuse layers with too few experts for a router, and name the largest threshold that leaves enough."""
    short, possible = None, 1.0
    for layer, banks in zip(experts.layers, chosen, strict=True):
        loads = _most_loaded(state, experts, layer, routers)
        for router in routers:
            seen, top_k = experts.banks[router], layer.experts.top_k
            possible = min(
                possible, float(loads[: layer.experts.visible(seen)].sort(descending=True).values[top_k - 1])
            )
            left = sum(len(bank) for bank in banks[:seen])
            if left < top_k and short is None:
                short = f"{layer.name} would keep {left} expert(s) for task {router!r}, but top_k={top_k}"
    if short:
        # Rounded down, so that it works as it is printed.
        largest = int(possible * 1e4) / 1e4
        raise MTAdaptError(
            f"--threshold {threshold:g}: {short}; the largest threshold that works is {largest:g}, or keep the "
            "most used ones with --keep-top-k"
        )
