"""Write the report in its three forms."""

from __future__ import annotations

from pathlib import Path

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.zoo.report.benchmark import read_benchmarks
from mtadapt.zoo.report.csv_report import csv_report
from mtadapt.zoo.report.html import html_report
from mtadapt.zoo.report.markdown import markdown_report


def write_report(results: Path, out: Path) -> list[Path]:
    """Write ``results.csv``, ``report.md`` and ``report.html`` from the result files below a folder.

    The same results give the same files, byte for byte. Links are relative, so that both folders move together.

    Args:
        results: folder of the runs.
        out: folder for the files; made if it is not there.

    Returns:
        list: Their paths.

    Raises:
        MTAdaptError: when there is no result, one cannot be read, or two are of the same run.
    """
    benchmarks = read_benchmarks(results)
    contents = {
        "results.csv": csv_report(benchmarks, out),
        "report.md": markdown_report(benchmarks, out),
        "report.html": html_report(benchmarks, out),
    }
    for name, content in contents.items():
        write_atomically(out / name, content.encode())
    return [out / name for name in contents]
