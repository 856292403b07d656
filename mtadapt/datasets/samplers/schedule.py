"""Which share of the training each source gets, and which source has its turn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from mtadapt.datasets.samplers.counter_rng import key_of, uniform
from mtadapt.errors import MTAdaptError

SCHEDULES = ("fixed", "proportional", "temperature", "round_robin")


def source_shares(
    sizes: Mapping[str, int], schedule: str, weights: Mapping[str, float] | None, temperature: float
) -> dict[str, float]:
    """The share of every source; the shares add up to 1.

    Args:
        sizes: source name to number of samples.
        schedule: ``fixed`` (the ``weights``), ``proportional`` (to the sizes), ``temperature`` (to the sizes to the
            power of ``1 / temperature``) or ``round_robin`` (equal).
        weights: source name to weight, of ``fixed``.
        temperature: 1 is proportional, infinity equal.

    Returns:
        Source name to share.

    Raises:
        MTAdaptError: for an unknown schedule, weights where none belong or that are missing, not positive or not
            finite, or a temperature that is not positive.
    """
    if schedule not in SCHEDULES:
        raise MTAdaptError(f"HeterogeneousBatchSampler: schedule={schedule!r}; known: {', '.join(SCHEDULES)}")
    if (schedule == "fixed") != (weights is not None):
        remedy = "write weights=dict(...)" if weights is None else "leave weights out, or write schedule='fixed'"
        raise MTAdaptError(f"HeterogeneousBatchSampler: schedule={schedule!r}, weights={weights!r}; {remedy}")
    if not temperature > 0:
        raise MTAdaptError(f"HeterogeneousBatchSampler: temperature={temperature!r}; write a number above 0")
    if weights is not None:
        check_names("weights", weights, sizes)
        for name, weight in weights.items():
            if (
                isinstance(weight, bool)
                or not isinstance(weight, (int, float))
                or not math.isfinite(weight)
                or weight <= 0
            ):
                raise MTAdaptError(
                    f"source {name!r}: weight {weight!r}; write a finite number above 0, or leave the source out"
                )
        parts = {name: float(weights[name]) for name in sizes}
    elif schedule == "round_robin":
        parts = dict.fromkeys(sizes, 1.0)
    else:
        power = 1.0 if schedule == "proportional" else 1.0 / temperature
        largest = max(sizes.values())
        parts = {name: (size / largest) ** power for name, size in sizes.items()}
    total = sum(parts.values())
    return {name: part / total for name, part in parts.items()}


def check_names(setting: str, given: Any, sizes: Mapping[str, int]) -> None:
    """Compare the sources that a setting names with those of the dataset.

    Raises:
        MTAdaptError: when it is no dictionary, or one is missing or unknown.
    """
    if not isinstance(given, Mapping):
        raise MTAdaptError(
            f"HeterogeneousBatchSampler: {setting}={given!r}; write {setting}=dict({next(iter(sizes))}=...)"
        )
    for name in sizes:
        if name not in given:
            raise MTAdaptError(f"source {name!r} is missing in {setting}={dict(given)!r}")
    for name in given:
        if name not in sizes:
            raise MTAdaptError(f"{setting} names the unknown source {name!r}; the dataset has {', '.join(sizes)}")


def split_batch(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Split a batch by the shares, the rounding going to the largest remainders.

    Args:
        total: samples in the batch.
        shares: source name to share.

    Returns:
        Source name to its quota.

    Raises:
        MTAdaptError: when a quota is 0.
    """
    exact = {name: total * share for name, share in shares.items()}
    quotas = {name: math.floor(value + 1e-9) for name, value in exact.items()}
    by_remainder = sorted(shares, key=lambda name: quotas[name] - exact[name])
    for name in by_remainder[: total - sum(quotas.values())]:
        quotas[name] += 1
    for name, quota in quotas.items():
        if quota < 1:
            raise MTAdaptError(
                f"source {name!r}: its share {shares[name]:.3g} of batch_size={total} rounds to 0; give it a greater "
                f"weight, a batch_size of {math.ceil(1 / shares[name])}, or quotas: batch_size=dict({name}=1, ...)"
            )
    return quotas


class Turns:
    """The order in which sources have their turns, a function of the seed and the number of the turn.

    Args:
        shares: source name to share.
        round_robin: one after the other instead of at random.
        seed: the same on all processes.
    """

    def __init__(self, shares: Mapping[str, float], round_robin: bool, seed: int) -> None:
        self._limits = np.cumsum(list(shares.values()))
        self._round_robin = round_robin
        self._key = key_of(seed, "turn")

    def source(self, turn: int) -> int:
        """Position of the source that has turn number ``turn``."""
        if self._round_robin:
            return turn % len(self._limits)
        found = np.searchsorted(self._limits, uniform(self._key, turn) * self._limits[-1], side="right")
        return min(int(found), len(self._limits) - 1)
