"""Which differences between rows the seeds can show."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    """Every checkpoint against the reference, under the same paradigm that trains all tasks together."""
    return _compare_with_reference(table, [row for row in table.rows if not row.single_task])


def single_against_reference(table: Table) -> list[Comparison]:
    """The single-task baselines of every checkpoint against those of the reference."""
    return _compare_with_reference(table, [row for row in table.rows if row.single_task])


def against_finetune(table: Table) -> list[Comparison]:
    """Every other paradigm against ``finetune``, from the same checkpoint."""
    others = [row for row in table.rows if row.paradigm not in (FINETUNE, SINGLE_TASK)]
    return _compare([(row, table.row(row.checkpoint, FINETUNE)) for row in others], table.metrics)


def _compare_with_reference(table: Table, rows: Iterable[Row]) -> list[Comparison]:
    others = [row for row in rows if row.checkpoint != table.reference]
    return _compare([(row, table.row(table.reference, row.paradigm)) for row in others], table.metrics)


def _compare(pairs: Sequence[tuple[Row, Row | None]], metrics: Iterable[Metric]) -> list[Comparison]:
    found = [
        Comparison(row, other, metric, paired_test(row.values[metric.task].values, other.values[metric.task].values))
        for metric in metrics
        for row, other in pairs
        if other is not None and row.values[metric.task].count and other.values[metric.task].count
    ]
    corrected = holm([each.test.p for each in found])
    return [replace(each, corrected=p) for each, p in zip(found, corrected, strict=True)]
