"""The report as a Markdown page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mtadapt.zoo.load_report import percent
from mtadapt.zoo.report import wording
from mtadapt.zoo.report.benchmark import Benchmark
from mtadapt.zoo.report.comparisons import Comparison, against_finetune, against_reference, single_against_reference
from mtadapt.zoo.report.explanation import EXPLANATION
from mtadapt.zoo.report.table import Table


def markdown_report(benchmarks: Sequence[Benchmark], out: Path) -> str:
    """Write all benchmarks.

    Args:
        benchmarks: what to write.
        out: folder of the page, for the links.
    """
    blocks: list[str] = []
    for benchmark in benchmarks:
        blocks += [f"# Benchmark {_text(benchmark.name)}", _text(benchmark.protocol) or "No protocol is named."]
        blocks.append(_state(benchmark))
        for table in benchmark.tables:
            blocks += [f"## Label setting {_text(table.label_setting)}", *_results(table)]
            blocks += _comparisons(f"Against the checkpoint {_text(table.reference)}", against_reference(table))
            blocks += _comparisons("Against finetune", against_finetune(table))
            blocks += _comparisons(
                f"Single-task networks against {_text(table.reference)}", single_against_reference(table)
            )
            blocks += ["### Cost", _cost(table)]
        if benchmark.pretraining:
            blocks += ["## Trainings that made checkpoints", _pretraining(benchmark)]
        blocks += ["## Checkpoints", *_loadings(benchmark), "## Runs", _runs(benchmark, out)]
    blocks += ["## How to read it", "\n".join(f"- **{title}.** {text}" for title, text in EXPLANATION)]
    return "\n\n".join(blocks) + "\n"


def _text(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    return re.sub(r"[\\`*{}\[\]<>|#~]|\b_|_\b", r"\\\g<0>", " ".join(text.split()))


def _table(head: Sequence[str], right: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    """A table with padded columns; those named in ``right`` are numbers."""
    right = set(right)
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(3, *(len(line[place]) for line in lines)) for place in range(len(head))]
    marks = [
        "-" * (width - 1) + ":" if name in right else "-" * width for name, width in zip(head, widths, strict=True)
    ]

    def padded(line: Sequence[str]) -> str:
        cells = [
            text.rjust(width) if name in right else text.ljust(width)
            for name, text, width in zip(head, line, widths, strict=True)
        ]
        return f"| {' | '.join(cells)} |"

    return "\n".join([padded(lines[0]), padded(marks), *(padded(line) for line in lines[1:])])


def _state(benchmark: Benchmark) -> str:
    cells, failed = benchmark.cells, benchmark.failed
    state = (
        f"{len(cells) - len(failed)} of {len(cells)} runs finished, {len(failed)} failed; "
        f"{wording.hours(benchmark.hours)} device hours in all ({_text(', '.join(benchmark.devices))})."
    )
    lines = []
    for cell in failed:
        names = (cell.result.label_setting, cell.result.paradigm, cell.result.checkpoint)
        run = ", ".join(_text(name) for name in names if name)
        lines.append(f"- {run}, seed {cell.result.seed}: {_text(cell.result.error or 'no reason was recorded')}")
    return "\n".join([state, *([""] if lines else []), *lines])


def _results(table: Table) -> list[str]:
    numbers = [_text(metric.heading) for metric in table.metrics]
    deltas = ["Δ multi-task"]
    if any(row.delta_reference.summary.count for row in table.rows):
        deltas.append(f"Δ against {_text(table.reference)}")
    tail = ["device hours", "trainable"]
    rows = []
    for row in table.rows:
        marks = "".join(f" [{place}]" for place, (owner, _) in enumerate(table.notes, 1) if owner is row)
        shown = [wording.spread(row.values[metric.task], len(table.seeds)) for metric in table.metrics]
        delta = [
            wording.spread(each.summary, len(table.seeds), sign=True)
            for each in (row.delta, row.delta_reference)[: len(deltas)]
        ]
        cost = [wording.hours(row.hours.mean), _text(wording.stages(row.trainable))]
        rows.append([_text(row.checkpoint), _text(row.paradigm) + marks, *shown, *delta, str(len(row.seeds)), *cost])
    head = ["checkpoint", "paradigm", *numbers, *deltas, "seeds", *tail]
    blocks = [_table(head, {*numbers, *deltas, "seeds", *tail}, rows)]
    blocks += [_text(remark) for remark in table.remarks]
    lines = [
        f"{place}. {_text(row.checkpoint)}, {_text(row.paradigm)}: {_text(note)}"
        for place, (row, note) in enumerate(table.notes, 1)
    ]
    return [*blocks, "\n".join(lines)] if lines else blocks


def _comparisons(title: str, comparisons: Sequence[Comparison]) -> list[str]:
    if not comparisons:
        return []
    head = ["task", "checkpoint", "paradigm", "difference", "95 % interval", "p", "p (Holm)", "seeds"]
    rows = [
        [
            _text(each.metric.heading),
            _text(each.row.checkpoint),
            _text(each.row.paradigm),
            wording.number(each.test.mean, sign=True),
            wording.interval(each.test),
            wording.p_value(each.test.p),
            wording.p_value(each.corrected),
            str(len(each.test.seeds)),
        ]
        for each in comparisons
    ]
    return [f"### {title}", _table(head, head[3:], rows)]


def _cost(table: Table) -> str:
    head = ["checkpoint", "paradigm", "networks", "parameters", "trainable", "hours a seed", "all hours", "device"]
    rows = []
    for row in table.rows:
        rows.append(
            [
                _text(row.checkpoint),
                _text(row.paradigm),
                str(row.networks),
                wording.count(row.parameters),
                _text(wording.stages(row.trainable)),
                wording.hours(row.hours.mean),
                wording.hours(row.spent),
                _text(", ".join(row.devices)) or wording.NOTHING,
            ]
        )
    return _table(head, [*head[2:4], *head[5:7]], rows)


def _pretraining(benchmark: Benchmark) -> str:
    head = ["checkpoint", "seed", "status", "parameters", "device hours", "device"]
    rows = [
        [
            _text(cell.result.checkpoint),
            str(cell.result.seed),
            cell.result.status,
            wording.count(cell.result.parameters),
            wording.hours(cell.result.device_hours),
            _text(f"{cell.result.devices} x {cell.result.device}"),
        ]
        for cell in benchmark.pretraining
    ]
    return _table(head, ["seed", "parameters", "device hours"], rows)


def _loadings(benchmark: Benchmark) -> list[str]:
    head = [
        "checkpoint",
        "loaded",
        "format",
        "backbone",
        "matched",
        "missing",
        "reshaped",
        "unused",
        "SHA-256",
        "seeds",
        "file",
        "source",
    ]
    rows, notes = [], []
    for each in benchmark.loadings:
        weights = each.weights or {}
        counts = [each.count(name) for name in ("matched", "missing", "reshaped", "unexpected")]
        rows.append(
            [
                _text(each.checkpoint),
                percent(each.share) if each.share is not None else "nothing",
                _text(str(weights.get("format", "random weights"))),
                _text(str(weights.get("backbone", wording.NOTHING))),
                *(wording.NOTHING if count is None else str(count) for count in counts),
                _text(str(weights.get("sha256") or wording.NOTHING)[:8]),
                ", ".join(str(seed) for seed in each.seeds),
                _text(str(weights.get("source") or wording.NOTHING)),
                _text(each.source) or wording.NOTHING,
            ]
        )
        if each.note:
            notes.append(f"- **{_text(each.checkpoint)}: {each.note}.**")
    if not rows:
        return ["No run has finished."]
    return [
        _table(head, ["loaded", "matched", "missing", "reshaped", "unused"], rows),
        *(["\n".join(notes)] if notes else []),
    ]


def _runs(benchmark: Benchmark, out: Path) -> str:
    head = ["label setting", "paradigm", "checkpoint", "seed", "status", "attempts", "device hours", "files"]
    rows = []
    for cell in benchmark.cells:
        result = cell.result
        links = [(name, wording.link(cell.path, getattr(result, name), out)) for name in ("config", "log")]
        rows.append(
            [
                _text(result.label_setting) or wording.NOTHING,
                _text(result.paradigm),
                _text(result.checkpoint),
                str(result.seed),
                result.status,
                str(result.attempts),
                wording.hours(result.device_hours),
                " ".join(f"[{name}]({address})" for name, address in links if address) or wording.NOTHING,
            ]
        )
    return _table(head, ["seed", "attempts", "device hours"], rows)
