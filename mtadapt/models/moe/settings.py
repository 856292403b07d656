"""What ``mlp_experts`` and ``attention_experts`` of a backbone say, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mtadapt.errors import MTAdaptError

_KEYS = ("num_experts", "top_k", "every", "offset")


@dataclass(frozen=True)
class LayerExperts:
    """The experts of one layer.

    Attributes:
        banks: number of experts of each bank; a bank holds the experts that were added at the same time.
        top_k: experts that a token uses.
    """

    banks: tuple[int, ...]
    top_k: int

    @property
    def num_experts(self) -> int:
        """Experts of all banks."""
        return sum(self.banks)

    def visible(self, num_banks: int) -> int:
        """Experts of the first ``num_banks`` banks."""
        return sum(self.banks[:num_banks])


def plan_experts(setting: str, given: Mapping | None, num_blocks: int) -> list[LayerExperts | None]:
    """Read the setting of a backbone.

    Args:
        setting: its name, for messages.
        given: None for no experts, or a dictionary:

            - ``num_experts``: a number, the sizes of several banks, or a list with one of these a layer with experts.
            - ``top_k``: experts that a token uses; 4 by default.
            - ``every``: every how many blocks one has experts; 1 by default.
            - ``offset``: the first block with experts, counted from 0; ``every - 1`` by default.
        num_blocks: blocks of the backbone.

    Returns:
        One entry a block; None for blocks without experts.

    Raises:
        MTAdaptError: for an unknown key, a number that is none, a list of another length, or ``top_k`` above the number
            of experts.
    """
    if given is None:
        return [None] * num_blocks
    if not isinstance(given, Mapping):
        raise MTAdaptError(f"{setting}={given!r}: write dict(num_experts=..., top_k=...), or None for dense layers")
    unknown = set(given) - set(_KEYS)
    if unknown or "num_experts" not in given:
        raise MTAdaptError(f"{setting}={dict(given)!r}: write num_experts and, if need be, {', '.join(_KEYS[1:])}")
    top_k, every = given.get("top_k", 4), given.get("every", 1)
    offset = given.get("offset", every - 1 if _is_count(every) else 0)
    if not _is_count(top_k) or not _is_count(every) or type(offset) is not int or not 0 <= offset < num_blocks:
        raise MTAdaptError(
            f"{setting}: top_k={top_k!r}, every={every!r}, offset={offset!r}; write whole numbers from 1, and an "
            f"offset from 0 to below the {num_blocks} blocks"
        )
    blocks = range(offset, num_blocks, every)
    plan: list[LayerExperts | None] = [None] * num_blocks
    for block, banks in zip(blocks, _banks(setting, given["num_experts"], len(blocks)), strict=True):
        plan[block] = LayerExperts(banks, top_k)
        if sum(banks) < top_k:
            raise MTAdaptError(f"{setting}: top_k={top_k} of num_experts={sum(banks)}; a token needs top_k experts")
    return plan


def check_task_banks(setting: str, experts: LayerExperts, tasks: Sequence[str], task_banks: Mapping[str, int]) -> None:
    """Refuse routers that see no or too few experts.

    Raises:
        MTAdaptError: for an unknown task, a number of banks that the layer does not have, or fewer experts than
            ``top_k``.
    """
    if not isinstance(task_banks, Mapping):
        raise MTAdaptError(f"task_banks={task_banks!r}: write dict(task=number of banks)")
    for task, number in task_banks.items():
        if task not in tasks:
            raise MTAdaptError(f"task_banks of unknown task {task!r}; tasks: {', '.join(tasks)}")
        if not _is_count(number) or number > len(experts.banks):
            raise MTAdaptError(f"task_banks[{task!r}]={number!r}; {setting} has {len(experts.banks)} bank(s)")
        if experts.visible(number) < experts.top_k:
            raise MTAdaptError(
                f"task_banks[{task!r}]={number}: {experts.visible(number)} experts, but {setting} has "
                f"top_k={experts.top_k}"
            )


def _banks(setting: str, given: int | Sequence, num_layers: int) -> list[tuple[int, ...]]:
    if _is_count(given):
        return [(given,)] * num_layers  # type: ignore[list-item]
    layers = list(given) if isinstance(given, (list, tuple)) else []
    if len(layers) != num_layers:
        raise MTAdaptError(
            f"{setting}: num_experts={given!r}; write a number, or a list with an entry for each of the {num_layers} "
            "layers with experts"
        )
    banks = [tuple(layer) if isinstance(layer, (list, tuple)) else (layer,) for layer in layers]
    for layer in banks:
        if not layer or not all(type(size) is int and size >= 0 for size in layer):
            raise MTAdaptError(f"{setting}: num_experts has the entry {layer!r}; write whole numbers")
    return banks


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1
