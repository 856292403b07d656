"""Markdown table of the main metrics of finished runs, from the logs that MMEngine writes.

    python tools/analysis_tools/results_table.py docs/logs/*/scalars.json
    python tools/analysis_tools/results_table.py docs/logs/camvid_adaptation/*/*.json

One row a folder. Several logs in one folder are seeds of one config: their mean and standard deviation. Metrics that no
run has are left out.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.runs.scalars import last_validation

#: Metric to its heading and the factor that makes it a percentage.
COLUMNS = {
    "mlc/mAP": ("labels mAP", 1.0),
    "probe/knn_timeofday": ("k-NN top-1 (time of day)", 1.0),
    "cls/top1": ("cls top-1", 1.0),
    "det/bbox_mAP": ("det AP", 100.0),
    "det/bbox_mAP_50": ("det AP50", 100.0),
    "sem_seg/mIoU": ("sem_seg mIoU", 1.0),
    "drivable/official_mIoU": ("drivable mIoU (official)", 1.0),
    "drivable/strict_mIoU": ("drivable mIoU (strict)", 1.0),
}


def last_metrics(path: Path) -> dict[str, float]:
    """The metrics of the last validation in a ``scalars.json``."""
    metrics = last_validation([path])
    if not any(name in metrics for name in COLUMNS):
        raise MTAdaptError(f"{path}: holds no validation; train with val_interval at most max_epochs")
    return metrics


def table(paths: list[Path]) -> str:
    """One row a folder of logs, named after it."""
    folders: dict[Path, list[dict[str, float]]] = {}
    for path in paths:
        folders.setdefault(path.parent, []).append(last_metrics(path))
    columns = {
        name: column
        for name, column in COLUMNS.items()
        if any(name in run for runs in folders.values() for run in runs)
    }
    rows = [f"| run | {' | '.join(heading for heading, _ in columns.values())} |", "|---" * (len(columns) + 1) + "|"]
    for folder, runs in folders.items():
        cells = [
            _cell([metrics[name] * factor for metrics in runs if name in metrics])
            for name, (_, factor) in columns.items()
        ]
        rows.append(f"| {folder.name} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="+", type=Path, help="scalars.json of each run")
    print(table(parser.parse_args().logs))


if __name__ == "__main__":
    with one_line_errors():
        main()
