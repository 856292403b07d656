"""Compare pretrained checkpoints: train every checkpoint with every paradigm, label setting and seed of a zoo file.

    python tools/benchmark_pretrained.py configs/zoo/demo.yaml --dry-run
    python tools/benchmark_pretrained.py configs/zoo/demo.yaml --jobs 2

The same command again leaves out what is finished, resumes what was interrupted and starts what has failed once more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.zoo.benchmark import Cell, Grid, Launch, Plan, check, collect, read_zoo, run_locally
from mtadapt.zoo.benchmark.processes import LOG
from mtadapt.zoo.report import write_report

#: Folder of the report, below that of the runs.
REPORT = "report"
TRAIN = Path(__file__).with_name("train.py")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path, help="zoo file, e.g. configs/zoo/demo.yaml")
    parser.add_argument("--work-dir", type=Path, help="folder of the runs (default: the zoo file's)")
    parser.add_argument("--launcher", choices=["none", "pytorch"], default="none", help="how a run is started")
    parser.add_argument("--gpus", type=int, default=1, help="processes of a run with a launcher, one a device")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="checkpoints, paradigms or single tasks to run alone")
    parser.add_argument("--retries", type=int, default=1, help="how often a run that fails is started again")
    parser.add_argument("--trust-checkpoint", action="store_true", help="let checkpoints run the code that they hold")
    parser.add_argument("--dry-run", action="store_true", help="show the cells and their estimated cost, run nothing")
    parser.add_argument("--report", action="store_true", help="only write the report of what is finished or failed")
    parser.add_argument("--collect", type=Path, metavar="FOLDER", help="only copy the results of finished cells there")
    return parser.parse_args()


def chosen(grid: Grid, names: list[str] | None) -> list[Cell]:
    """The cells that are named, by their checkpoint, their training or their whole name, and what they need."""
    cells = grid.cells()
    if not names:
        return cells
    known = {word for cell in cells for word in _words(cell)}
    unknown = [name for name in names if name not in known]
    if unknown:
        words = dict.fromkeys(word for cell in cells for word in _words(cell)[:-1])
        raise MTAdaptError(f"--only {' '.join(unknown)}: the zoo file has {', '.join(words)}")
    parts = {part for cell in cells for part in (cell.checkpoint.name,)} & set(names)
    others = set(names) - parts
    kept = [
        cell
        for cell in cells
        if cell.kind != "pretrain"
        and (not parts or cell.checkpoint.name in parts)
        and (not others or others & set(_words(cell)))
    ]
    needed = {cell.needs for cell in kept}
    return [cell for cell in cells if cell in needed or cell in kept]


def _words(cell: Cell) -> list[str]:
    return [cell.checkpoint.name, cell.training.name, cell.name]


def report(grid: Grid) -> None:
    """Write the report of all results."""
    for path in write_report(grid.root, grid.root / REPORT):
        print(path)


def main() -> int:
    """Run the benchmark; return 1 if a run has failed."""
    args = parse_args()
    grid = Grid(read_zoo(args.zoo), args.work_dir, args.trust_checkpoint)
    cells = chosen(grid, args.only)
    if args.collect:
        print(f"{collect(grid, cells, args.collect)} finished cells in {args.collect}")
    if args.report:
        report(grid)
    if args.report or args.collect:
        return 0
    left_out = check(grid, download=not args.dry_run)
    if args.dry_run:
        print("\n".join([*left_out, Plan(grid, cells, args.gpus).table()]))
        return 0
    launch = Launch(TRAIN, args.gpus if args.launcher == "pytorch" else 0, args.retries)
    outcomes = run_locally(grid, cells, launch, args.jobs)
    failed = {cell: result for cell, result in outcomes.items() if result and result.status == "failed"}
    for cell, result in failed.items():
        print(f"FAILED {cell.name}: {result.error} ({grid.folder(cell) / LOG})")
    print(f"{len(failed)} of {len(outcomes)} cells failed; results in {grid.root}")
    report(grid)
    return int(bool(failed))


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
