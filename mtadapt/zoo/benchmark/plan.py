"""What a benchmark is going to run, and about how long that takes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from prettytable import PrettyTable

from mtadapt.engine.hooks.parameter_table_hook import blank_image_flops
from mtadapt.registry import DATASETS, MODELS
from mtadapt.runs.processes import busy
from mtadapt.zoo.benchmark.cell import known_result
from mtadapt.zoo.benchmark.grid import Cell, Grid
from mtadapt.zoo.benchmark.preflight import quiet

# A training step is a forward pass and a backward pass of about twice its computation.
_STEP = 3


@dataclass(frozen=True)
class Work:
    """What the training of a config computes.

    Args:
        steps: of the optimizer.
        batch: images a step, on all devices.
        gflops: of the prediction for one image; None where the model cannot predict one.
    """

    steps: int
    batch: int
    gflops: float | None

    @property
    def training_gflops(self) -> float | None:
        """Ours: steps times images times three passes, whatever is frozen."""
        if self.gflops is None:
            return None
        return self.steps * self.batch * self.gflops * _STEP


class Plan:
    """The cells, their states and their estimated cost.

    Args:
        grid: the benchmark.
        cells: of it.
        devices: that a run takes.
    """

    def __init__(self, grid: Grid, cells: Sequence[Cell], devices: int = 1) -> None:
        self.grid = grid
        self.cells = cells
        self.devices = devices
        self.results = {cell: known_result(grid, cell) for cell in cells}
        self._work: dict[str, Work | None] = {}

    def state(self, cell: Cell) -> str:
        """``finished``, ``running``, ``retry``, ``resume`` or ``run``."""
        folder, result = self.grid.folder(cell), self.results[cell]
        if result is not None and result.status == "finished":
            return "finished"
        if folder.is_dir() and busy(folder):
            return "running"
        if result is not None:
            return "retry"
        return "resume" if any(folder.rglob("last_checkpoint")) else "run"

    def work(self, cell: Cell) -> Work | None:
        """Steps and computation of a cell; None where its data or its model is not there."""
        config = self.grid.config(cell)
        parts = [config.get(key) for key in ("model", "train_dataloader", "train_cfg")]
        key = json.dumps(parts, sort_keys=True, default=repr)
        if key not in self._work:
            self._work[key] = _work(config, self.devices)
        return self._work[key]

    def hours(self, cell: Cell, work: Work | None) -> tuple[float, str] | None:
        """Device hours of a cell and where the number is from; None where nothing is known."""
        result = self.results[cell]
        if result is not None and result.status == "finished":
            return result.device_hours, "measured"
        alike = [
            known.device_hours
            for other, known in self.results.items()
            if known is not None
            and known.status == "finished"
            and (other.kind, other.training.config) == (cell.kind, cell.training.config)
        ]
        if alike:
            return mean(alike), "from finished cells"
        tflops = self.grid.zoo.tflops
        computation = work.training_gflops if work is not None else None
        if computation is None or tflops is None:
            return None
        return computation / (tflops * 1e3) / 3600, "from hardware.tflops"

    def table(self) -> str:
        """A row for every cell and the totals, without a final newline."""
        table = PrettyTable(["cell", "state", "steps", "training TFLOPs", "device hours", "estimate"])
        table.align = "r"
        for name in ("cell", "state", "estimate"):
            table.align[name] = "l"
        left: list[float | None] = []
        for cell in self.cells:
            state, work = self.state(cell), self.work(cell)
            hours = self.hours(cell, work)
            if state != "finished":
                left.append(hours[0] if hours else None)
            table.add_row(
                [
                    cell.name,
                    state,
                    f"{work.steps:,}" if work else "-",
                    f"{work.training_gflops / 1e3:,.1f}" if work and work.training_gflops is not None else "-",
                    f"{hours[0]:.3g}" if hours else "-",
                    hours[1] if hours else "-",
                ]
            )
        return f"{table.get_string()}\n{self._summary(left)}"

    def _summary(self, left: Sequence[float | None]) -> str:
        known = [hours for hours in left if hours is not None]
        states = ", ".join(f"{number} {state}" for state, number in _counts(map(self.state, self.cells)).items())
        line = f"{len(self.cells)} cells: {states}; about {sum(known):.3g} device hours to go"
        return line + (f", and {len(left) - len(known)} cells of unknown length" if len(known) < len(left) else "")


def _counts(states: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for state in states:
        counts[state] = counts.get(state, 0) + 1
    return counts


def _work(config: Config, devices: int) -> Work | None:
    """Build the data set and the model, and predict for a blank image of the first one's size."""
    with quiet(), DefaultScope.overwrite_default_scope(config.get("default_scope", "mtadapt")):
        try:
            dataset = DATASETS.build(config.train_dataloader["dataset"])
            steps, batch = schedule(config, config.train_dataloader, len(dataset), devices)
        except Exception:
            # Whatever the data set misses, the plan says so with a dash, and the run with its reason.
            return None
        try:
            flops = blank_image_flops(MODELS.build(config.model), pseudo_collate([dataset[0]]))
        except Exception:
            return Work(steps, batch, None)
    return Work(steps, batch, sum(flops.values()) / 1e9)


def schedule(config: Config, loader: Mapping[str, Any], images: int, devices: int) -> tuple[int, int]:
    """Steps of a training, and images a step on all devices."""
    sampler = loader.get("batch_sampler") or {}
    sizes = sampler.get("batch_size", loader.get("batch_size", 1))
    if isinstance(sizes, Mapping):
        # A batch of all sources together, or the batches of one after the other.
        sizes = sum(sizes.values()) if sampler.get("mode") == "mixed" else mean(sizes.values())
    batch = int(sizes) * devices
    if config.train_cfg.get("max_epochs"):
        return config.train_cfg.max_epochs * math.ceil(images / batch), batch
    return config.train_cfg.max_iters, batch
