"""Markdown table of the main metrics of finished runs, from the logs that MMEngine writes.

python tools/analysis_tools/results_table.py docs/logs/*/scalars.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mtadapt.errors import MTAdaptError, one_line_errors

#: Metric to its heading and the factor that makes it a percentage.
COLUMNS = {
    "det/bbox_mAP": ("det AP", 100.0),
    "det/bbox_mAP_50": ("det AP50", 100.0),
    "sem_seg/mIoU": ("sem_seg mIoU", 1.0),
    "drivable/official_mIoU": ("drivable mIoU (official)", 1.0),
    "drivable/strict_mIoU": ("drivable mIoU (strict)", 1.0),
}


def last_metrics(path: Path) -> dict[str, float]:
    """The metrics of the last validation in a ``scalars.json``."""
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    except (OSError, json.JSONDecodeError) as error:
        raise MTAdaptError(f"{path}: no log of scalars ({error}); give a run's vis_data/scalars.json") from error
    found = [line for line in lines if any(name in line for name in COLUMNS)]
    if not found:
        raise MTAdaptError(f"{path}: holds no validation; train with val_interval at most max_epochs")
    return found[-1]


def table(paths: list[Path]) -> str:
    """One row a log, named after its folder."""
    rows = [f"| run | {' | '.join(heading for heading, _ in COLUMNS.values())} |", "|---" * (len(COLUMNS) + 1) + "|"]
    for path in paths:
        metrics = last_metrics(path)
        cells = [f"{metrics[name] * factor:.1f}" if name in metrics else "-" for name, (_, factor) in COLUMNS.items()]
        rows.append(f"| {path.parent.name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Table of finished runs")
    parser.add_argument("logs", nargs="+", type=Path, help="scalars.json of each run")
    print(table(parser.parse_args().logs))


if __name__ == "__main__":
    with one_line_errors():
        main()
