"""Mean and spread over seeds, and what the difference of two series of runs can show."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scipy.stats import ttest_rel

#: Ours: the fewest seeds for which an interval and a p value are given. Two leave one degree of freedom.
FEWEST_SEEDS = 3
#: Ours: differences that spread less than this share of the values are equal; what is left is rounding.
EQUAL = 1e-9


@dataclass(frozen=True)
class Summary:
    """The values of one number over the seeds.

    Args:
        values: seed to value; seeds without a value are left out.
    """

    values: Mapping[int, float] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of seeds with a value."""
        return len(self.values)

    @property
    def mean(self) -> float | None:
        """Mean over the seeds; None without a value."""
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the sample, with n - 1 below; None for fewer than two values."""
        return statistics.stdev(self.values.values()) if self.count > 1 else None


@dataclass(frozen=True)
class PairedTest:
    """Two series of runs compared seed by seed.

    Args:
        seeds: that both have.
        mean: of the differences; None without a common seed.
        low: lower end of the 95 % interval of the mean; None where there is no test.
        high: its upper end.
        p: of the two-sided paired t test; None where there is no test.
        reason: why there is no test; empty where there is one.
    """

    seeds: tuple[int, ...]
    mean: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    reason: str = ""


def paired_test(values: Mapping[int, float], others: Mapping[int, float]) -> PairedTest:
    """Test whether ``values`` and ``others`` differ in the mean, pairing the runs of the same seed.

    Metrics are logged with a few digits, so the differences of all seeds can be equal by rounding. Then there is no
    spread to compare them with: the test is refused, unless all are zero, which is no difference at all (p = 1).

    Args:
        values: seed to value.
        others: seed to the value to subtract.

    Returns:
        PairedTest: of ``values - others``.

    Reference: Student (1908), "The probable error of a mean"; the test is :func:`scipy.stats.ttest_rel`.
    """
    seeds = tuple(sorted(set(values) & set(others)))
    if not seeds:
        return PairedTest((), None, reason="no seed in common")
    left, right = [values[seed] for seed in seeds], [others[seed] for seed in seeds]
    differences = [one - other for one, other in zip(left, right, strict=True)]
    mean = statistics.fmean(differences)
    if len(seeds) < FEWEST_SEEDS:
        return PairedTest(seeds, mean, reason=f"{len(seeds)} of the {FEWEST_SEEDS} seeds that a test needs")
    scale = max(abs(value) for value in [*left, *right])
    if max(differences) - min(differences) <= EQUAL * scale:
        if abs(mean) <= EQUAL * scale:
            return PairedTest(seeds, 0.0, 0.0, 0.0, 1.0)
        return PairedTest(seeds, mean, reason="the same difference in every seed: no spread to test with")
    test = ttest_rel(left, right)
    interval = test.confidence_interval(0.95)
    return PairedTest(seeds, mean, float(interval.low), float(interval.high), float(test.pvalue))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Correct p values for their number, so that any false alarm among all of them stays as rare as said.

    Args:
        ps: p values; a None is no test, and does not count.

    Returns:
        list: The corrected values in the same order, at most 1.

    Reference: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    order = sorted((p, place) for place, p in enumerate(ps) if p is not None and not math.isnan(p))
    corrected: list[float | None] = [None] * len(ps)
    floor = 0.0
    for rank, (p, place) in enumerate(order):
        floor = max(floor, min(1.0, p * (len(order) - rank)))
        corrected[place] = floor
    return corrected
