"""Run the cells on this machine, several at a time."""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from mtadapt.runs.parallel import in_parallel
from mtadapt.runs.processes import LOG, Processes
from mtadapt.zoo.benchmark.cell import Launch, known_result, run_cell
from mtadapt.zoo.benchmark.grid import Cell, Grid
from mtadapt.zoo.results import CellResult

#: What a cell came to: its result, or None when another call of the tool is at it.
Outcomes = dict[Cell, CellResult | None]


def run_locally(grid: Grid, cells: Sequence[Cell], launch: Launch, jobs: int = 1) -> Outcomes:
    """Run the cells that are not finished.

    Each run gets the cores of the machine divided by ``jobs`` and, where there are GPUs and no launcher, one of them.
    A cell waits for its pre-training. A cell that fails leaves the others alone.

    Args:
        grid: the benchmark.
        cells: to be run; those of :meth:`~mtadapt.zoo.benchmark.grid.Grid.cells` or a part in the same order.
        launch: how a run is started.
        jobs: runs at a time.

    Returns:
        Every cell, also those that were finished before, and its result.

    Raises:
        KeyboardInterrupt: after Ctrl-C or SIGTERM, when the runs are ended; the next call resumes them.
    """
    before = {cell: known_result(grid, cell) for cell in cells}
    done: Outcomes = {cell: result for cell, result in before.items() if result and result.status == "finished"}
    waiting = [cell for cell in cells if cell not in done]
    _say(f"{len(done)} of {len(cells)} cells are finished, {len(waiting)} to run, {jobs} at a time")
    processes, slots = Processes(), _slots(jobs, launch)
    finished = {cell: threading.Event() for cell in waiting}

    def work(cell: Cell) -> CellResult | None:
        try:
            if cell.needs in finished:
                finished[cell.needs].wait()
            processes.check()
            env = slots.get()
            try:
                _say(f"{time.strftime('%H:%M:%S')} {cell.name}: {grid.folder(cell) / LOG}")
                return run_cell(grid, cell, replace(launch, env=env), processes)
            finally:
                slots.put(env)
        finally:
            finished[cell].set()

    def tell(number: int, cell: Cell, result: CellResult | None) -> None:
        _say(f"[{number}/{len(waiting)}] {_line(cell, result)}")

    return done | in_parallel(work, waiting, jobs, processes, tell)


def _line(cell: Cell, result: CellResult | None) -> str:
    if result is None:
        return f"{cell.name}: left to another call of the tool, which is at it"
    if result.status == "failed":
        return f"{cell.name}: failed: {result.error}"
    return f"{cell.name}: finished, {result.seconds:.0f} s of training"


def _say(line: str) -> None:
    """Print a line in one piece, as several threads do."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _slots(jobs: int, launch: Launch) -> queue.Queue[dict[str, str]]:
    """The environment of each run at a time."""
    slots: queue.Queue[dict[str, str]] = queue.Queue()
    threads = max(1, _cores() // jobs // max(1, launch.processes))
    devices = _devices()
    for number in range(jobs):
        env = dict(OMP_NUM_THREADS=str(threads))
        if devices and not launch.processes:
            env["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
        slots.put(env)
    return slots


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _devices() -> list[str]:
    """The GPUs, as ``CUDA_VISIBLE_DEVICES`` names them."""
    number = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",")[:number] if given else [str(device) for device in range(number)]
