"""All runs as a CSV file: one line a run, the numbers as the metrics reported them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mtadapt.zoo.report.benchmark import Benchmark
from mtadapt.zoo.report.table import Cell
from mtadapt.zoo.report.wording import link

FIRST = ("zoo", "kind", "label_setting", "checkpoint", "paradigm", "seed", "status", "attempts")
DELTAS = ("multi_task_delta_percent", "multi_task_delta_percent_against_reference", "reference")
COST = ("seconds", "devices", "device", "device_hours", "parameters")
WEIGHTS = ("format", "share", "sha256")
LAST = ("config", "log", "error", "protocol")


def csv_report(benchmarks: Sequence[Benchmark], out: Path) -> str:
    """Write all runs of all benchmarks, also those that failed and those that made checkpoints.

    Metrics stay as they are reported: COCO's are fractions, most others are in percent.

    Args:
        benchmarks: what to write.
        out: folder of the file, for the links.
    """
    cells = [cell for benchmark in benchmarks for cell in benchmark.cells]
    metrics = _ordered(name for cell in cells for name in cell.result.metrics)
    stages = _ordered(name for cell in cells for name in cell.result.trainable)
    trainable = [f"trainable:{stage}" for stage in stages]
    weights = [f"weights:{name}" for name in WEIGHTS]
    text = io.StringIO()
    fields = [*FIRST, *metrics, *DELTAS, *COST, *trainable, *weights, *LAST]
    writer = csv.DictWriter(text, fields, lineterminator="\n", restval="")
    writer.writeheader()
    for benchmark in benchmarks:
        deltas = _deltas(benchmark)
        for cell in benchmark.cells:
            writer.writerow(_line(cell, out) | deltas.get(cell.path, {}))
    return text.getvalue()


def _ordered(names: Iterable[str]) -> list[str]:
    return sorted(set(names))


def _line(cell: Cell, out: Path) -> dict[str, Any]:
    result = cell.result
    line: dict[str, Any] = {name: getattr(result, name) for name in (*FIRST, *COST, "error", "protocol")}
    line |= result.metrics
    line |= {f"trainable:{stage}": size for stage, size in result.trainable.items()}
    line |= {f"weights:{name}": (result.weights or {}).get(name, "") for name in WEIGHTS}
    line |= {name: link(cell.path, getattr(result, name), out) for name in ("config", "log")}
    line["error"] = " ".join((result.error or "").split())
    return line


def _deltas(benchmark: Benchmark) -> dict[Path, dict[str, Any]]:
    found: dict[Path, dict[str, Any]] = {}
    for table in benchmark.tables:
        for row in table.rows:
            for cell in row.cells:
                seed = cell.result.seed
                values = (row.delta.summary.values.get(seed, ""), row.delta_reference.summary.values.get(seed, ""))
                found[cell.path] = dict(zip(DELTAS, (*values, table.reference), strict=True))
    return found
