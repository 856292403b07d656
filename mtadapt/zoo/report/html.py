"""The report as one page of HTML that needs nothing else: no network, no server, and no script to be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mtadapt.zoo.load_report import percent
from mtadapt.zoo.report import wording
from mtadapt.zoo.report.bars import charts, colours
from mtadapt.zoo.report.benchmark import Benchmark
from mtadapt.zoo.report.comparisons import Comparison, against_finetune, against_reference, single_against_reference
from mtadapt.zoo.report.explanation import EXPLANATION
from mtadapt.zoo.report.table import FINETUNE, SINGLE_TASK, Table

FOLDER = Path(__file__).with_name("page")


def html_report(benchmarks: Sequence[Benchmark], out: Path) -> str:
    """Write all benchmarks.

    Args:
        benchmarks: what to write.
        out: folder of the page, for the links.
    """
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {
        "number": wording.number,
        "spread": wording.spread,
        "hours": wording.hours,
        "parameters": wording.count,
        "stages": wording.stages,
        "percent": percent,
        "p": wording.p_value,
        "interval": wording.interval,
        "breakable": breakable,
    }
    environment.globals |= {
        "style": Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        "script": Markup((FOLDER / "page.js").read_text(encoding="utf-8")),
        "charts": charts,
        "colours": colours,
        "comparisons": comparisons,
        "reach": reach,
        "best": best,
        "filters": filters,
        "link": lambda cell, name: wording.link(cell.path, getattr(cell.result, name), out),
        "nothing": wording.NOTHING,
        "finetune": FINETUNE,
        "single_task": SINGLE_TASK,
        "explanation": EXPLANATION,
    }
    return environment.get_template("page.html").render(benchmarks=benchmarks)


def breakable(name: str) -> Markup:
    """A name that may break after its underscores, hyphens and slashes."""
    text = Markup.escape(name)
    for mark in "_-/":
        text = text.replace(mark, Markup(f"{mark}<wbr>"))
    return text


def comparisons(table: Table) -> list[tuple[str, str, list[Comparison], bool]]:
    """The lists of a table that are not empty, with title, what is compared, and whether it is unfolded."""
    found = [
        (f"Against the checkpoint “{table.reference}”", "under the same paradigm", against_reference(table), True),
        (f"Against the paradigm “{FINETUNE}”", "from the same checkpoint", against_finetune(table), True),
        (f"Single-task networks against “{table.reference}”", "for each task", single_against_reference(table), False),
    ]
    return [each for each in found if each[2]]


def reach(found: Sequence[Comparison], key: str) -> float:
    """The largest distance from zero of the differences of a metric and of their intervals; the scale of the plot."""
    tests = [each.test for each in found if each.metric.key == key]
    ends = [abs(value) for test in tests for value in (test.mean, test.low, test.high) if value is not None]
    return max(ends, default=0.0) or 1.0


def filters(benchmarks: Sequence[Benchmark]) -> list[tuple[str, str, list[str]]]:
    """What rows can be chosen by, where there is a choice: attribute, title and names."""
    tables = [table for benchmark in benchmarks for table in benchmark.tables]
    found = [
        ("setting", "Label setting", [table.label_setting for table in tables]),
        ("paradigm", "Paradigm", [name for table in tables for name in table.paradigms]),
        ("checkpoint", "Checkpoint", [name for table in tables for name in table.checkpoints]),
    ]
    return [(key, title, unique) for key, title, names in found if len(unique := list(dict.fromkeys(names))) > 1]


def best(table: Table) -> dict[str, float]:
    """Task to the highest mean of its column."""
    found: dict[str, float] = {}
    for metric in table.metrics:
        means = [mean for row in table.rows if (mean := row.values[metric.task].mean) is not None]
        if len(means) > 1:
            found[metric.task] = max(means)
    return found
