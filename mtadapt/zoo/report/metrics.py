"""The number that stands for each task, its heading and its scale."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from mtadapt.evaluation.summary import MAIN
from mtadapt.zoo.results import CellResult

#: Words for the metrics; a name that is not here is its own heading.
HEADINGS = {
    "bbox_mAP": "AP",
    "segm_mAP": "mask AP",
    "official_mIoU": "mIoU (official)",
    "top1": "top-1",
    "accuracy/top1": "top-1",
    "multi-label/mAP": "mAP",
}
#: COCO's metrics are fractions.
FRACTIONS = ("bbox_", "segm_", "proposal_")


@dataclass(frozen=True)
class Metric:
    """The main metric of a task.

    Args:
        task: the task.
        name: of the metric, without the task.
        factor: that makes it a percentage.
    """

    task: str
    name: str
    factor: float = 1.0

    @property
    def key(self) -> str:
        """Name under which the runs report it."""
        return f"{self.task}/{self.name}"

    @property
    def heading(self) -> str:
        """Words for the head of a column."""
        return f"{self.task} {HEADINGS.get(self.name, self.name)}"

    def value(self, result: CellResult) -> float | None:
        """In percent; None when the run did not report it, or as a number below zero, which marks "no labels"."""
        value = result.metrics.get(self.key)
        if value is None or not math.isfinite(value) or value < 0:
            return None
        return value * self.factor


def main_metrics(results: Iterable[CellResult]) -> tuple[Metric, ...]:
    """The main metric of every task that the results name, in the order in which they name them.

    One choice holds for all of the results, so that a column never mixes two metrics.

    Args:
        results: of the runs that are shown in one table.

    Returns:
        tuple: A metric a task; a task whose runs reported nothing has none.
    """
    names: dict[str, set[str]] = {}
    for result in sorted(results, key=lambda each: (each.kind != "multi_task", each.paradigm, each.checkpoint)):
        for task in result.tasks:
            names.setdefault(task, set())
        for key in sorted(result.metrics):
            task, slash, name = key.partition("/")
            if slash and task in names:
                names[task].add(name)
    chosen = (
        (task, next((name for name in [*MAIN, *sorted(found)] if name in found), None), found)
        for task, found in names.items()
    )
    return tuple(Metric(task, name, _factor(name, found)) for task, name, found in chosen if name is not None)


def _factor(name: str, beside: set[str]) -> float:
    """What makes a metric a percentage. VOC's mAP, a fraction, is told from others by the AP50 beside it."""
    voc = name == "mAP" and any(re.fullmatch(r"AP\d\d", other) for other in beside)
    return 100.0 if voc or name.startswith(FRACTIONS) else 1.0
