"""Copy what finished runs leave behind into a folder that can be published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mtadapt.errors import MTAdaptError
from mtadapt.runs.scalars import scalar_logs
from mtadapt.zoo.benchmark.cell import CONFIG, known_result
from mtadapt.zoo.benchmark.grid import Cell, Grid
from mtadapt.zoo.results import RESULT

_SCALARS = "scalars.json"


def collect(grid: Grid, cells: Sequence[Cell], target: Path) -> int:
    """Copy result, config and scalars of every finished cell, with the folders that they have in the work directory.

    The scalars of all starts and stages of a run are one file, which is its log there. Configs of runs that differ in
    their seed alone are there once, with the first seed. Folders of this machine are taken out of configs and results.

    Args:
        grid: the benchmark.
        cells: of it.
        target: folder to copy to.

    Returns:
        Number of finished cells.

    Raises:
        MTAdaptError: when no cell is finished.
    """
    results = {cell: result for cell in cells if (result := known_result(grid, cell)) is not None}
    finished = {cell: result for cell, result in results.items() if result.status == "finished"}
    if not finished:
        raise MTAdaptError(f"{grid.root}: no cell is finished; run tools/benchmark_pretrained.py first")
    first: dict[Path, str] = {}
    for cell, result in finished.items():
        folder, copy = grid.folder(cell), target / cell.name
        own = first.setdefault(copy.parent, copy.name) == copy.name
        copy.mkdir(parents=True, exist_ok=True)
        (copy / _SCALARS).write_text("".join(log.read_text() for log in scalar_logs(folder)))
        if own:
            (copy / CONFIG).write_text(_published(grid, (folder / CONFIG).read_text()))
        config = CONFIG if own else f"../{first[copy.parent]}/{CONFIG}"
        replace(result, config=config, log=_SCALARS).write(copy)
        (copy / RESULT).write_text(_published(grid, (copy / RESULT).read_text()))
    return len(finished)


def _published(grid: Grid, text: str) -> str:
    """A file as it would be with the work directory that the zoo file names, seen from the working directory."""
    for quote in "'\"":
        text = text.replace(f"{quote}{grid.root}/", f"{quote}{grid.zoo.work_dir}/")
        text = text.replace(f"{quote}{Path.cwd()}/", quote)
    return text
