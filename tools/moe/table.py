"""Markdown table of the reports that the tools of this folder write.

    python tools/moe/table.py work_dirs/pruned_det/report.json work_dirs/combined/report.json

A row a model: what a tool began with, unless an earlier row has the same weights and name, and what it made.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mtadapt.engine.measure import measurement_table
from mtadapt.engine.model_folder import read_report
from mtadapt.errors import MTAdaptError, one_line_errors


def rows(paths: list[Path]) -> dict[str, dict[str, Any]]:
    """Name to measurement, in the order of the reports."""
    models: dict[str, dict[str, Any]] = {}
    for path in paths:
        report = read_report(path)
        for model in (report.get("before"), report["after"]):
            if model is None:
                continue
            name, other = model["name"], models.get(model["name"])
            if other is not None and other["weights"] != model["weights"]:
                raise MTAdaptError(
                    f"{path}: two models are named {name!r}; rename a folder, or measure one with --name"
                )
            # A report with metrics wins over one without.
            if other is None or "metrics" in model:
                models[name] = model
    sizes = sorted({model["gflops"]["size"] for model in models.values()})
    if len(sizes) > 1:
        raise MTAdaptError(f"the FLOPs of the reports are of images of {', '.join(sizes)}; measure with one --size")
    return models


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=Path, help="report.json of each")
    print(measurement_table(rows(parser.parse_args().reports), markdown=True))


if __name__ == "__main__":
    with one_line_errors():
        main()
