"""All results below a folder, divided into what may stand in one table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mtadapt.zoo.report.loading import Loading, loadings
from mtadapt.zoo.report.table import Cell, Table, build_table, reference_of
from mtadapt.zoo.results import KINDS, read_results


@dataclass(frozen=True)
class Benchmark:
    """The runs of one zoo file under one protocol.

    Args:
        name: of the zoo file.
        protocol: in the words of the zoo file.
        cells: all runs, the trainings of checkpoints first.
        tables: one a label setting.
        loadings: what was loaded from each checkpoint.
        reference: checkpoint that the others are compared with; empty where there is none.
    """

    name: str
    protocol: str
    cells: tuple[Cell, ...]
    tables: tuple[Table, ...]
    loadings: tuple[Loading, ...]
    reference: str

    @property
    def pretraining(self) -> tuple[Cell, ...]:
        """The runs that made checkpoints."""
        return tuple(cell for cell in self.cells if cell.result.kind == "pretrain")

    @property
    def failed(self) -> tuple[Cell, ...]:
        """The runs that did not train to their end."""
        return tuple(cell for cell in self.cells if not cell.finished)

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Names of the checkpoints."""
        return tuple(dict.fromkeys(name for table in self.tables for name in table.checkpoints))

    @property
    def paradigms(self) -> tuple[str, ...]:
        """Names of the paradigms that train all tasks together."""
        return tuple(dict.fromkeys(row.paradigm for table in self.tables for row in table.rows if not row.single_task))

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the transfers."""
        return tuple(sorted({cell.result.seed for cell in self.cells if cell.result.kind != "pretrain"}))

    @property
    def hours(self) -> float:
        """Device hours of all runs together, also of those that failed and of those that made checkpoints."""
        return sum(cell.result.device_hours for cell in self.cells)

    @property
    def devices(self) -> tuple[str, ...]:
        """What the runs ran on."""
        return tuple(sorted({cell.result.device for cell in self.cells}))


def read_benchmarks(folder: Path) -> list[Benchmark]:
    """Read the results below a folder; other protocols and zoo files stay apart.

    Raises:
        MTAdaptError: when there is no result, one cannot be read, or two are of the same run.
    """
    groups: dict[tuple[str, str], list[Cell]] = {}
    for path, result in read_results(folder).items():
        groups.setdefault((result.zoo, result.protocol), []).append(Cell(path, result))
    return [_benchmark(name, protocol, cells) for (name, protocol), cells in sorted(groups.items())]


def _benchmark(name: str, protocol: str, cells: Sequence[Cell]) -> Benchmark:
    cells = sorted(cells, key=_order)
    reference = reference_of(cells)
    transfers = [cell for cell in cells if cell.result.kind != "pretrain"]
    seeds = tuple(sorted({cell.result.seed for cell in transfers}))
    settings = sorted({cell.result.label_setting for cell in transfers}, key=lambda each: (each != "full", each))
    tables = tuple(
        build_table(setting, [cell for cell in transfers if cell.result.label_setting == setting], reference, seeds)
        for setting in settings
    )
    return Benchmark(name, protocol, tuple(cells), tables, tuple(loadings(cells)), reference)


def _order(cell: Cell) -> tuple[int, str, str, str, int, list[int | str]]:
    result = cell.result
    path = [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", str(cell.path))]
    return KINDS.index(result.kind), result.label_setting, result.checkpoint, result.paradigm, result.seed, path
