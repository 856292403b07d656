"""Train one cell of the grid and write down what came out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.engine.hooks.cost_hook import COST
from mtadapt.errors import MTAdaptError
from mtadapt.runs.processes import LOCK, LOG, Processes, busy, locked, reason_of, training_command
from mtadapt.runs.scalars import last_validation, scalar_logs
from mtadapt.zoo.benchmark.grid import Cell, Grid
from mtadapt.zoo.results import RESULT, CellResult, read_result

CONFIG = "config.py"
RECIPE = "recipe.sha256"
_ATTEMPTS = "attempts"
_WEIGHTS = "backbone_weights.json"
# Names that stock metrics put before those of their numbers.
_LIBRARY_PREFIXES = ("coco/", "accuracy/")


@dataclass(frozen=True)
class Launch:
    """How a run is started.

    Args:
        tool: ``tools/train.py``.
        processes: torchrun's, one a device; 0 for one process without a launcher.
        retries: how often a run that failed is started again.
        env: further environment variables, e.g. threads and devices.
    """

    tool: Path
    processes: int = 0
    retries: int = 1
    env: Mapping[str, str] | None = None


def known_result(grid: Grid, cell: Cell) -> CellResult | None:
    """The result of a run, if there is one.

    Raises:
        MTAdaptError: when the folder holds a run of another recipe that was finished or could be resumed. One that
            failed before its first checkpoint is as none, so that the mistake can be mended in the zoo file.
    """
    folder = grid.folder(cell)
    recipe = folder / RECIPE
    if not recipe.is_file():
        return None
    result = read_result(folder / RESULT) if (folder / RESULT).is_file() else None
    if recipe.read_text().strip() == grid.recipe(cell):
        return result
    if any(folder.rglob("*.pth")) or (result is not None and result.status == "finished"):
        raise MTAdaptError(
            f"{folder}: was run with other settings than those of {cell.training.where} and {cell.checkpoint.where}; "
            "remove the folder, or name another --work-dir"
        )
    return None


def run_cell(grid: Grid, cell: Cell, launch: Launch, processes: Processes) -> CellResult | None:
    """Train a cell unless it is finished, and write its result.

    Args:
        grid: the benchmark.
        cell: of it.
        launch: how it is started.
        processes: that are ended with the tool.

    Returns:
        The result, finished or failed; None when another call of the tool is at it or at its pre-training.
    """
    folder = grid.folder(cell)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as lock:
        if lock is None:
            return None
        result = known_result(grid, cell)
        if result is not None and result.status == "finished":
            return result
        lacking = _lacking(grid, cell)
        if lacking and cell.needs and busy(grid.folder(cell.needs)):
            return None
        for _ in range(1 + launch.retries):
            result = _result(grid, cell, lacking) if lacking else _attempt(grid, cell, launch, processes, lock)
            result.write(folder)
            if lacking or result.status == "finished":
                break
    return result


def _lacking(grid: Grid, cell: Cell) -> str | None:
    """Why a cell cannot be run: its pre-training is not finished."""
    if cell.needs is None:
        return None
    result = known_result(grid, cell.needs)
    if result is not None and result.status == "finished":
        return None
    reason = result.error if result is not None else "it was not run"
    return f"the pre-training {cell.needs.name} is not finished: {reason}"


def _attempt(grid: Grid, cell: Cell, launch: Launch, processes: Processes, lock: int) -> CellResult:
    folder = grid.folder(cell)
    path = folder / CONFIG
    recipe = grid.recipe(cell)
    if (folder / RECIPE).is_file() and (folder / RECIPE).read_text().strip() != recipe:
        _empty(folder)
    write_atomically(folder / RECIPE, f"{recipe}\n".encode())
    write_atomically(folder / _ATTEMPTS, f"{_attempts(folder) + 1}\n".encode())
    text = grid.config(cell).pretty_text
    path.write_text(text)
    command = training_command(launch.tool, path, folder, processes=launch.processes)
    try:
        code = processes.run(command, folder / LOG, dict(launch.env or {}), lock)
    finally:
        # The training writes its config to the same place, as it is after a resume.
        path.write_text(text)
    return _result(grid, cell, reason_of(folder / LOG, code) if code else None)


def _empty(folder: Path) -> None:
    """Remove what a run of another recipe left, which failed before its first checkpoint."""
    for path in folder.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _attempts(folder: Path) -> int:
    path = folder / _ATTEMPTS
    return int(path.read_text()) if path.is_file() else 0


def _result(grid: Grid, cell: Cell, error: str | None) -> CellResult:
    """What the folder of a run tells; a run without what it should have left has failed."""
    folder, config = grid.folder(cell), grid.config(cell)
    stages = [stage["name"] for stage in config.get("stages") or ()]
    places = {name: folder / name for name in stages} or {"train": folder}
    costs = {name: _json(place / COST) for name, place in places.items() if (place / COST).is_file()}
    weights = next((_json(place / _WEIGHTS) for place in places.values() if (place / _WEIGHTS).is_file()), None)
    metrics: dict[str, float] = {}
    if error is None:
        # Only the last stage's count; those of the stages before are of a model half trained.
        metrics = last_validation(scalar_logs([*places.values()][-1]))
        error = _missing(cell, places.keys() - costs.keys(), weights, metrics)
    if cell.kind == "single_task":
        metrics = {of_task(cell.training.name, name): value for name, value in metrics.items()}
    last: Mapping[str, Any] = [*costs.values()][-1] if costs else {}
    return CellResult(
        zoo=grid.zoo.name,
        kind=cell.kind,
        checkpoint=cell.checkpoint.name,
        paradigm=cell.training.name,
        label_setting=cell.label_setting,
        seed=cell.seed,
        status="failed" if error else "finished",
        attempts=_attempts(folder),
        tasks=() if error else _tasks(metrics),
        metrics={} if error else metrics,
        seconds=round(sum(cost["seconds"] for cost in costs.values()), 2),
        devices=last.get("devices", 1),
        device=last.get("device", "cpu"),
        parameters=last.get("parameters", 0),
        trainable={name: cost["trainable"] for name, cost in costs.items()},
        weights=weights if cell.kind != "pretrain" else None,
        config=CONFIG,
        log=LOG,
        error=_without_machine(error, grid) if error else None,
        protocol=grid.zoo.protocol,
        reference=grid.zoo.reference,
        source=cell.checkpoint.cited,
    )


def _missing(cell: Cell, without_cost: Iterable[str], weights: Any, metrics: Mapping[str, float]) -> str | None:
    starts_from_file = cell.kind != "pretrain" and (cell.checkpoint.source or cell.checkpoint.pretrain)
    if starts_from_file and weights is None:
        return f"the run has left no {_WEIGHTS}: nothing shows that the checkpoint was loaded"
    if any(without_cost):
        return f"the run has left no {COST} of {', '.join(sorted(without_cost))}"
    if cell.kind != "pretrain" and not metrics:
        return "the run has left no validation; give the config val_dataloader, val_evaluator and val_cfg"
    return None


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def _tasks(metrics: Mapping[str, float]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.partition("/")[0] for name in metrics if "/" in name))


def of_task(task: str, metric: str) -> str:
    """Name of a metric of a single-task model as a multi-task one names it: ``coco/bbox_mAP`` to ``det/bbox_mAP``."""
    if metric.startswith(f"{task}/"):
        return metric
    start = next((prefix for prefix in _LIBRARY_PREFIXES if metric.startswith(prefix)), "")
    return f"{task}/{metric.removeprefix(start)}"


def _without_machine(text: str, grid: Grid) -> str:
    """A message without the folders of this machine, because results are published."""
    for folder in (Path.cwd(), grid.root.resolve()):
        text = text.replace(f"{folder}/", "")
    return text
