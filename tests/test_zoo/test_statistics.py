from __future__ import annotations

import math

import pytest

from mtadapt.zoo.report.statistics import Summary, holm, paired_test


def test_summary_is_mean_and_standard_deviation_of_the_sample() -> None:
    summary = Summary({0: 1.0, 1: 2.0, 2: 6.0})
    assert (summary.count, summary.mean) == (3, 3.0)
    assert summary.deviation == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert (Summary({4: 5.0}).mean, Summary({4: 5.0}).deviation) == (5.0, None)
    assert (Summary().mean, Summary().deviation) == (None, None)


def test_paired_test_against_the_closed_form_for_two_degrees_of_freedom() -> None:
    """For n = 3, P(|T| > t) = 1 - t / sqrt(t^2 + 2), and the 97.5 % quantile is 0.95 / sqrt(2 * 0.975 * 0.025)."""
    test = paired_test({0: 11.0, 1: 22.0, 2: 33.0}, {2: 30.0, 1: 20.0, 0: 10.0})
    t = 2 * math.sqrt(3)  # the differences 1, 2, 3 have the mean 2 and the deviation 1
    quantile = 0.95 / math.sqrt(2 * 0.975 * 0.025)
    assert test.seeds == (0, 1, 2)
    assert test.mean == pytest.approx(2)
    assert test.p == pytest.approx(1 - t / math.sqrt(t * t + 2))
    assert (test.low, test.high) == pytest.approx((2 - quantile / math.sqrt(3), 2 + quantile / math.sqrt(3)))


def test_only_common_seeds_are_paired() -> None:
    test = paired_test({0: 1.0, 1: 5.0, 2: 6.0, 3: 9.0}, {1: 4.0, 2: 4.0, 3: 4.0, 7: 100.0})
    assert (test.seeds, test.mean) == ((1, 2, 3), pytest.approx(8 / 3))


@pytest.mark.parametrize(
    ("values", "others", "seeds", "mean", "reason"),
    [
        ({0: 1.0, 1: 2.0}, {0: 0.0, 1: 0.0}, (0, 1), 1.5, "2 of the 3 seeds that a test needs"),
        ({0: 1.0}, {1: 1.0}, (), None, "no seed in common"),
        ({}, {}, (), None, "no seed in common"),
        # What rounding leaves of equal differences, 0.152 - 0.151 and 0.101 - 0.1, is no spread.
        (
            {0: 0.152, 1: 0.101, 2: 0.2},
            {0: 0.151, 1: 0.1, 2: 0.199},
            (0, 1, 2),
            0.001,
            "the same difference in every seed: no spread to test with",
        ),
    ],
)
def test_no_test_where_there_is_nothing_to_test_with(
    values: dict[int, float], others: dict[int, float], seeds: tuple[int, ...], mean: float | None, reason: str
) -> None:
    test = paired_test(values, others)
    assert (test.seeds, test.reason) == (seeds, reason)
    assert test.mean == (None if mean is None else pytest.approx(mean))
    assert (test.low, test.high, test.p) == (None, None, None)


def test_no_difference_at_all_is_no_nan() -> None:
    test = paired_test({0: 3.0, 1: 5.0, 2: 0.0}, {0: 3.0, 1: 5.0, 2: 0.0})
    assert (test.mean, test.low, test.high, test.p, test.reason) == (0.0, 0.0, 0.0, 1.0, "")
    zeros = dict.fromkeys(range(3), 0.0)
    assert paired_test(zeros, zeros).p == 1.0


def test_holm_by_hand() -> None:
    """0.01 * 4, 0.02 * 3, 0.03 * 2 = 0.06, and 0.04 * 1, which may not fall below the one before."""
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_counts_only_tests() -> None:
    assert holm([None, 0.02, None, 0.5]) == [None, pytest.approx(0.04), None, pytest.approx(0.5)]
