"""The bars of a task: what is drawn where, in percent of the width of the plot."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mtadapt.zoo.report.benchmark import Benchmark
from mtadapt.zoo.report.metrics import Metric
from mtadapt.zoo.report.statistics import Summary
from mtadapt.zoo.report.table import Row, Table

#: Ours: about as many steps on an axis.
STEPS = 4
#: Colours of the page.
COLOURS = 8


@dataclass(frozen=True)
class Bar:
    """One row of the table.

    Args:
        row: the row.
        summary: of the task's metric.
    """

    row: Row
    summary: Summary


@dataclass(frozen=True)
class Group:
    """The bars of a checkpoint, and the single-task baseline that is drawn through them."""

    checkpoint: str
    baseline: Summary
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Chart:
    """One task of one table.

    Args:
        metric: what the bars show.
        groups: one a checkpoint.
        ticks: values of the axis, from zero to its end.
    """

    metric: Metric
    groups: tuple[Group, ...]
    ticks: tuple[float, ...]

    def place(self, value: float) -> float:
        """Percent of the width at which a value lies; what lies outside the axis is put at its end."""
        return round(100 * min(max(value / self.ticks[-1], 0.0), 1.0), 3)


def charts(table: Table) -> list[Chart]:
    """A chart for each metric of a table that any run reported."""
    found = []
    for metric in table.metrics:
        groups, ends = [], []
        for checkpoint in table.checkpoints:
            rows = [row for row in table.rows if row.checkpoint == checkpoint]
            alone = next((row.values[metric.task] for row in rows if row.single_task), Summary())
            bars = tuple(Bar(row, row.values[metric.task]) for row in rows if not row.single_task)
            groups.append(Group(checkpoint, alone, bars))
            ends += [_end(summary) for summary in [alone, *(bar.summary for bar in bars)] if summary.count]
        if ends:
            found.append(Chart(metric, tuple(groups), axis(max(ends))))
    return found


def colours(benchmark: Benchmark) -> dict[str, int]:
    """Number of the colour of each paradigm; the same in all tables of a benchmark."""
    return {name: place % COLOURS for place, name in enumerate(benchmark.paradigms)}


def axis(end: float) -> tuple[float, ...]:
    """Round ticks from zero to the first that is not below ``end``, at distances of 1, 2 or 5 times a power of ten."""
    end = end if end > 0 else 1.0
    power = 10 ** math.floor(math.log10(end / STEPS))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= end / STEPS)
    return tuple(round(place * step, 10) for place in range(math.ceil(round(end / step, 9)) + 1))


def _end(summary: Summary) -> float:
    assert summary.mean is not None
    return max([summary.mean + (summary.deviation or 0.0), *summary.values.values()])
