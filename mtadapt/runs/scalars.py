"""Read the metrics of a run from the log of scalars that MMEngine writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from mtadapt.errors import MTAdaptError

# What a line holds beside losses or metrics.
_BESIDE = frozenset(("step", "iter", "epoch", "time", "data_time", "memory"))
# What only a line of the training holds; losses of tasks come with their sum.
_OF_TRAINING = frozenset(("lr", "loss"))


def scalar_logs(folder: Path) -> list[Path]:
    """The logs of a run in the order of their starts; each start and each stage has its own.

    They are at ``<folder>/[<stage>/]<time of the start>/vis_data/scalars.json``.
    """
    return sorted(folder.rglob("vis_data/scalars.json"), key=lambda log: log.parents[1].name)


def last_validation(paths: Iterable[Path]) -> dict[str, float]:
    """The metrics of the last validation in logs that follow each other.

    Args:
        paths: of the logs, oldest first.

    Returns:
        Metric to its value, as the metrics report them; empty when nothing was validated.

    Raises:
        MTAdaptError: when a file is no such log.
    """
    last: Mapping[str, object] = {}
    for path in paths:
        try:
            lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        except (OSError, ValueError) as error:
            raise MTAdaptError(f"{path}: no log of scalars ({error}); give a run's vis_data/scalars.json") from error
        for line in lines:
            if not isinstance(line, dict):
                raise MTAdaptError(f"{path}: no log of scalars; give a run's vis_data/scalars.json")
            if not _OF_TRAINING & line.keys() and line.keys() - _BESIDE:
                last = line
    return {
        name: float(value)
        for name, value in last.items()
        if name not in _BESIDE and isinstance(value, (int, float)) and not isinstance(value, bool)
    }
