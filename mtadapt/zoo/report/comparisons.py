"""Which differences between rows the seeds can show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mtadapt.zoo.report.metrics import Metric
from mtadapt.zoo.report.statistics import PairedTest, holm, paired_test
from mtadapt.zoo.report.table import FINETUNE, SINGLE_TASK, Row, Table


@dataclass(frozen=True)
class Comparison:
    """One task of one row against the same task of another row.

    Args:
        row: the row.
        against: the row whose values are subtracted.
        metric: of the task.
        test: of the differences.
        corrected: p value, corrected for all comparisons of the same list; None where there is no test.
    """

    row: Row
    against: Row
    metric: Metric
    test: PairedTest
    corrected: float | None = None


def against_reference(table: Table) -> list[Comparison]:
    """Every checkpoint against the reference, under the same paradigm."""
    pairs = [(row, table.row(table.reference, row.paradigm)) for row in table.rows if row.checkpoint != table.reference]
    return _compare(pairs, table.metrics)


def against_finetune(table: Table) -> list[Comparison]:
    """Every other paradigm against ``finetune``, from the same checkpoint."""
    others = [row for row in table.rows if row.paradigm not in (FINETUNE, SINGLE_TASK)]
    return _compare([(row, table.row(row.checkpoint, FINETUNE)) for row in others], table.metrics)


def _compare(pairs: Iterable[tuple[Row, Row | None]], metrics: Iterable[Metric]) -> list[Comparison]:
    metrics = list(metrics)
    found = [
        Comparison(row, other, metric, paired_test(row.values[metric.task].values, other.values[metric.task].values))
        for row, other in pairs
        if other is not None
        for metric in metrics
        if row.values[metric.task].count and other.values[metric.task].count
    ]
    corrected = holm([each.test.p for each in found])
    return [replace(each, corrected=p) for each, p in zip(found, corrected, strict=True)]
