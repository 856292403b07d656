"""What was loaded from each checkpoint, and whether all runs loaded the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mtadapt.zoo.report.table import Cell


@dataclass(frozen=True)
class Loading:
    """What some runs of a checkpoint loaded.

    Args:
        checkpoint: its name.
        source: the paper or the page that the zoo file names.
        weights: the report of the loading, as :meth:`mtadapt.zoo.LoadReport.as_dict` gives it; None for random weights.
        cells: the runs.
        note: what is suspicious; empty where nothing is.
    """

    checkpoint: str
    source: str
    weights: Mapping[str, Any] | None
    cells: tuple[Cell, ...]
    note: str = ""

    @property
    def share(self) -> float | None:
        """Share of the backbone's elements that came from the file; None for random weights."""
        share = (self.weights or {}).get("share")
        return None if share is None else float(share)

    def count(self, name: str) -> int | None:
        """How many entries were ``matched``, ``missing``, ``unexpected`` or ``reshaped``; None for random weights."""
        return (self.weights or {}).get(name)

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of the runs."""
        return tuple(sorted({cell.result.seed for cell in self.cells}))


def loadings(cells: Iterable[Cell]) -> list[Loading]:
    """One entry for each checkpoint, file and share; a checkpoint that a training of each seed makes has a file a seed.

    Runs that failed before they loaded anything are left out. An entry carries a note when runs of one checkpoint and
    seed loaded different things: the rows of such a checkpoint compare what is not comparable.
    """
    cells = list(cells)
    trained = {cell.result.checkpoint for cell in cells if cell.result.kind == "pretrain"}
    found: dict[tuple[str, str, str], list[Cell]] = {}
    files: dict[tuple[str, int | None], set[str]] = {}
    for cell in cells:
        result = cell.result
        if result.kind == "pretrain" or not (cell.finished or result.weights):
            continue
        digest = str((result.weights or {}).get("sha256", "")) if result.weights else "random"
        share = str((result.weights or {}).get("share"))
        found.setdefault((result.checkpoint, digest, share), []).append(cell)
        seed = result.seed if result.checkpoint in trained else None
        files.setdefault((result.checkpoint, seed), set()).add(digest)
    mixed = {name for (name, _), digests in files.items() if len(digests) > 1}
    entries = []
    for (name, *_), runs in sorted(found.items(), key=lambda item: (item[0][0], runs_order(item[1]))):
        first = runs[0].result
        note = "runs of this checkpoint loaded different files" if name in mixed else ""
        if name in trained and not first.weights:
            note = "nothing was loaded, though a training made this checkpoint"
        entries.append(Loading(name, first.source, first.weights, tuple(runs), note))
    return entries


def runs_order(cells: Iterable[Cell]) -> int:
    """First seed of some runs."""
    return min(cell.result.seed for cell in cells)
