"""The results of a benchmark as rows: one a checkpoint and paradigm, over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mtadapt.errors import MTAdaptError
from mtadapt.zoo.report.metrics import Metric, main_metrics
from mtadapt.zoo.report.statistics import Summary
from mtadapt.zoo.results import CellResult

#: The paradigm that the others are compared with, and the name of the single-task baselines together.
FINETUNE, SINGLE_TASK = "finetune", "single task"


@dataclass(frozen=True)
class Cell:
    """A run and where its result lies."""

    path: Path
    result: CellResult

    @property
    def finished(self) -> bool:
        """Whether it trained to its end."""
        return self.result.status == "finished"


@dataclass(frozen=True)
class Delta:
    """Multi-task delta of a row: its value for each seed that has one, and why the others have none."""

    summary: Summary
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Row:
    """A checkpoint under a paradigm; or the single-task baselines of a checkpoint, which are one network a task.

    Args:
        checkpoint: its name.
        paradigm: its name, :data:`SINGLE_TASK` for the baselines.
        single_task: whether these are the baselines.
        cells: all runs, also those that failed.
        values: task to the main metric over the seeds, in percent.
        delta: against the single-task baselines of the same checkpoint.
        delta_reference: against the single-task baselines of the reference checkpoint.
        notes: on what is missing.
    """

    checkpoint: str
    paradigm: str
    single_task: bool
    cells: tuple[Cell, ...]
    values: Mapping[str, Summary]
    delta: Delta
    delta_reference: Delta
    notes: tuple[str, ...]

    @property
    def hours(self) -> Summary:
        """Device hours of a seed's finished runs: one run, or those of all tasks in the baselines."""
        return self._over_seeds(lambda result: result.device_hours)

    @property
    def spent(self) -> float:
        """Device hours of all runs, also of those that failed."""
        return sum(cell.result.device_hours for cell in self.cells)

    @property
    def devices(self) -> tuple[str, ...]:
        """Number and name of the devices of the runs."""
        return tuple(sorted({f"{cell.result.devices} x {cell.result.device}" for cell in self.cells if cell.finished}))

    @property
    def parameters(self) -> int:
        """Of the model; of all networks together in the baselines. 0 without a finished run."""
        return sum(cells[0].result.parameters for cells in self._finished_by_name().values())

    @property
    def trainable(self) -> dict[str, int]:
        """Stage to the parameters that train in it; of all networks together in the baselines."""
        stages: dict[str, int] = {}
        for cells in self._finished_by_name().values():
            for stage, number in cells[0].result.trainable.items():
                stages[stage] = stages.get(stage, 0) + number
        return stages

    @property
    def networks(self) -> int:
        """How many networks the row needs for its tasks."""
        return len({cell.result.paradigm for cell in self.cells})

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds with at least one finished run."""
        return tuple(sorted({cell.result.seed for cell in self.cells if cell.finished}))

    def _over_seeds(self, number: Callable[[CellResult], float]) -> Summary:
        names = set(self._finished_by_name())
        values: dict[int, float] = {}
        for seed in self.seeds:
            runs = [cell.result for cell in self.cells if cell.finished and cell.result.seed == seed]
            if {run.paradigm for run in runs} == names:
                values[seed] = sum(number(run) for run in runs)
        return Summary(values)

    def _finished_by_name(self) -> dict[str, list[Cell]]:
        found: dict[str, list[Cell]] = {}
        for cell in self.cells:
            if cell.finished:
                found.setdefault(cell.result.paradigm, []).append(cell)
        return found


@dataclass(frozen=True)
class Table:
    """What may be compared: the runs of one benchmark, protocol and label setting.

    Args:
        label_setting: its name.
        metrics: the columns.
        rows: by checkpoint, the reference first; the baselines first within a checkpoint, then ``finetune``.
        reference: checkpoint that the others are compared with; empty where there is none.
        seeds: that the benchmark ran.
    """

    label_setting: str
    metrics: tuple[Metric, ...]
    rows: tuple[Row, ...]
    reference: str
    seeds: tuple[int, ...]

    def row(self, checkpoint: str, paradigm: str) -> Row | None:
        """The row of a checkpoint and a paradigm."""
        return next((row for row in self.rows if (row.checkpoint, row.paradigm) == (checkpoint, paradigm)), None)

    @property
    def notes(self) -> list[tuple[Row, str]]:
        """What is missing, row by row."""
        return [(row, note) for row in self.rows for note in (*row.notes, *row.delta.notes)]

    @property
    def remarks(self) -> list[str]:
        """What is missing in the whole table."""
        found = []
        if not any(row.single_task for row in self.rows):
            found.append("No single-task runs for this label setting, so there is no multi-task delta.")
        if not self.reference and len(self.checkpoints) > 1:
            found.append("No reference among these checkpoints, so they are not tested against one.")
        if FINETUNE not in self.paradigms and len({row.paradigm for row in self.rows if not row.single_task}) > 1:
            found.append(f"No paradigm is called {FINETUNE}, so the paradigms are not tested against one.")
        return found

    @property
    def paradigms(self) -> tuple[str, ...]:
        """The names of the paradigms, in the order of the rows."""
        return tuple(sorted({row.paradigm for row in self.rows}, key=_paradigm_order))

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """The names of the checkpoints, in the order of the rows."""
        return tuple(dict.fromkeys(row.checkpoint for row in self.rows))


def reference_of(cells: Iterable[Cell]) -> str:
    """Checkpoint that the others are compared with: the one that the zoo file names, else the one without weights.

    Ours: without a name the reference is the only checkpoint whose transfers all began at random weights; where there
    is no such checkpoint, or more than one, there is none.
    """
    cells = list(cells)
    named = {cell.result.reference for cell in cells} - {""}
    if len(named) == 1:
        return named.pop()
    loaded: dict[str, bool] = {}
    for cell in cells:
        if cell.result.kind != "pretrain" and cell.finished:
            loaded[cell.result.checkpoint] = loaded.get(cell.result.checkpoint, False) or bool(cell.result.weights)
    trained = {cell.result.checkpoint for cell in cells if cell.result.kind == "pretrain"}
    random = [name for name, has in loaded.items() if not has and name not in trained]
    return random[0] if len(random) == 1 and not named else ""


def build_table(label_setting: str, cells: Sequence[Cell], reference: str, seeds: tuple[int, ...]) -> Table:
    """Arrange the runs of one benchmark, protocol and label setting.

    Args:
        label_setting: its name.
        cells: its transfers and single-task runs.
        reference: checkpoint that the others are compared with.
        seeds: that the benchmark ran; a row without one of them says so.

    Raises:
        MTAdaptError: when two results are of the same run.
    """
    metrics = main_metrics(cell.result for cell in cells)
    runs = _by_name(cells)
    checkpoints = sorted({cell.result.checkpoint for cell in cells}, key=lambda name: (name != reference, name))
    multi = sorted({c.result.paradigm for c in cells if c.result.kind == "multi_task"}, key=_paradigm_order)
    single = sorted({c.result.paradigm for c in cells if c.result.kind == "single_task"})
    tasks = {name: {task for c in cells if c.result.paradigm == name for task in c.result.tasks} for name in multi}
    baselines = {name: _baselines(runs, name, metrics) for name in checkpoints}
    rows = []
    for checkpoint in checkpoints:
        if single:
            own = tuple(cell for task in single for cell in runs.get(("single_task", task, checkpoint), ()))
            values = {metric.task: baselines[checkpoint].get(metric.task, Summary()) for metric in metrics}
            nothing = Delta(Summary())
            notes = tuple(
                f"{task}: {note}"
                for task in single
                for note in _missing(
                    runs.get(("single_task", task, checkpoint), ()), seeds, [m for m in metrics if m.task == task]
                )
            )
            rows.append(Row(checkpoint, SINGLE_TASK, True, own, values, nothing, nothing, notes))
        for paradigm in multi:
            trained = [metric for metric in metrics if metric.task in tasks[paradigm]]
            own = tuple(runs.get(("multi_task", paradigm, checkpoint), ()))
            values = {metric.task: _summary(own, metric) for metric in metrics}
            delta, common = (
                _delta(own, trained, baselines[name], name) if single and name in baselines else Delta(Summary())
                for name in (checkpoint, reference)
            )
            rows.append(Row(checkpoint, paradigm, False, own, values, delta, common, _missing(own, seeds, trained)))
    return Table(label_setting, metrics, tuple(rows), reference if reference in checkpoints else "", seeds)


def _by_name(cells: Iterable[Cell]) -> dict[tuple[str, str, str], list[Cell]]:
    found: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in sorted(cells, key=lambda each: each.result.seed):
        result = cell.result
        runs = found.setdefault((result.kind, result.paradigm, result.checkpoint), [])
        if runs and runs[-1].result.seed == result.seed:
            raise MTAdaptError(
                f"{cell.path}: {result.paradigm}, {result.checkpoint}, seed {result.seed} is also in {runs[-1].path}; "
                "keep one of the two"
            )
        runs.append(cell)
    return found


def _paradigm_order(name: str) -> tuple[bool, bool, str]:
    return name != SINGLE_TASK, name != FINETUNE, name


def _summary(cells: Iterable[Cell], metric: Metric) -> Summary:
    values = {cell.result.seed: metric.value(cell.result) for cell in cells if cell.finished}
    return Summary({seed: value for seed, value in values.items() if value is not None})


def _baselines(
    runs: Mapping[tuple[str, str, str], list[Cell]], checkpoint: str, metrics: Iterable[Metric]
) -> dict[str, Summary]:
    """Task to the results of the run that trained it alone."""
    found = {}
    for metric in metrics:
        cells = runs.get(("single_task", metric.task, checkpoint))
        if cells:
            found[metric.task] = _summary(cells, metric)
    return found


def _missing(cells: Sequence[Cell], seeds: Iterable[int], metrics: Iterable[Metric]) -> tuple[str, ...]:
    """What a row lacks: seeds without a run, runs that failed, runs that did not report one of the metrics."""
    notes = []
    by_seed = {cell.result.seed: cell for cell in cells}
    absent = [str(seed) for seed in seeds if seed not in by_seed]
    if absent:
        notes.append(f"no result of seed {', '.join(absent)}")
    for seed, cell in sorted(by_seed.items()):
        if not cell.finished:
            notes.append(f"seed {seed} failed: {cell.result.error or 'no reason was recorded'}")
            continue
        silent = [metric.key for metric in metrics if metric.value(cell.result) is None]
        if silent:
            notes.append(f"seed {seed} reports no number for {', '.join(silent)}")
    return tuple(notes)


def _delta(
    cells: Iterable[Cell], metrics: Sequence[Metric], baselines: Mapping[str, Summary], checkpoint: str
) -> Delta:
    """Mean relative change over the tasks against networks that train one task alone, in percent, for every seed.

    Every metric is one of which more is better. A seed counts only if all tasks of the run have a number, and a
    baseline of the same seed that is not 0; otherwise a note tells what is missing.

    Reference: Vandenhende et al. (2021), "Multi-Task Learning for Dense Prediction Tasks: A Survey", section 4.1.
    """
    values: dict[int, float] = {}
    notes: dict[str, list[str]] = {}
    for cell in cells:
        if not cell.finished:
            continue
        seed = cell.result.seed
        pairs = [
            (metric, metric.value(cell.result), baselines.get(metric.task, Summary()).values.get(seed))
            for metric in metrics
        ]
        reasons = {
            "no": [metric.key for metric, value, _ in pairs if value is None],
            f"no single-task run of {checkpoint} for": [metric.task for metric, _, alone in pairs if alone is None],
            f"0 in the single-task run of {checkpoint} for": [metric.task for metric, _, alone in pairs if alone == 0],
        }
        for reason, names in reasons.items():
            if names:
                notes.setdefault(f"{reason} {', '.join(names)}", []).append(str(seed))
        changes = [(value - alone) / alone for _, value, alone in pairs if value is not None and alone]
        if changes and len(changes) == len(pairs):
            values[seed] = 100 * statistics.fmean(changes)
    explained = [f"seed {', '.join(seeds)} has no multi-task delta: {reason}" for reason, seeds in notes.items()]
    return Delta(Summary(values), tuple(explained))
