"""Compare pretrained checkpoints: train every checkpoint with every paradigm, label setting and seed of a zoo file.

    python tools/benchmark_pretrained.py configs/zoo/demo.yaml --dry-run
    python tools/benchmark_pretrained.py configs/zoo/demo.yaml --jobs 2
    python tools/benchmark_pretrained.py configs/zoo/bdd100k.yaml --launcher slurm --partition gpu --gpus 8

The same command again leaves out what is finished, resumes what was interrupted and starts what has failed once more.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.runs.processes import LOG
from mtadapt.zoo.benchmark import Cell, Grid, Launch, Plan, Slurm, check, collect, read_zoo, run_locally, submit
from mtadapt.zoo.report import write_report

#: Folder of the report, below that of the runs.
REPORT = "report"
TRAIN = Path(__file__).resolve().with_name("train.py")


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path, help="zoo file, e.g. configs/zoo/demo.yaml")
    parser.add_argument("--work-dir", type=Path, help="folder of the runs (default: the zoo file's)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="checkpoints, paradigms or single tasks to run alone")
    parser.add_argument("--retries", type=int, default=1, help="how often a run that fails is started again")
    parser.add_argument("--trust-checkpoint", action="store_true", help="let checkpoints run the code that they hold")
    parser.add_argument(
        "--cell", metavar="FOLDER", help="run this cell alone, without the report: a task of a job array"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--dry-run", action="store_true", help="show the cells and their estimated cost, run nothing")
    instead.add_argument("--report", action="store_true", help="only write the report of what is finished or failed")
    instead.add_argument("--collect", type=Path, metavar="FOLDER", help="only copy the results of finished cells there")
    launch = parser.add_argument_group("launch")
    launch.add_argument("--launcher", choices=["none", "pytorch", "slurm"], default="none", help="how a run is started")
    launch.add_argument("--gpus", type=int, help="of a run with a launcher (CPU processes without GPUs)")
    launch.add_argument("--jobs", type=int, default=1, help="runs at a time, without a launcher")
    slurm = parser.add_argument_group("Slurm")
    slurm.add_argument("--partition", help="of the jobs")
    slurm.add_argument("--time", help="limit of a run, e.g. 12:00:00")
    slurm.add_argument("--cpus-per-gpu", type=int, default=5, help="cores for each GPU")
    slurm.add_argument("--max-running", type=int, help="runs at a time")
    slurm.add_argument("--sbatch-args", default="", help="further flags of sbatch, e.g. '--account=vision --qos=low'")
    args = parser.parse_args()
    for name, least in dict(gpus=1, jobs=1, retries=0, cpus_per_gpu=1, max_running=1).items():
        if (getattr(args, name) if getattr(args, name) is not None else least) < least:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: give at least {least}")
    if args.launcher == "none" and (args.gpus or 1) > 1 and not args.dry_run:
        parser.error(f"--gpus {args.gpus}: without a launcher a run has one; add --launcher pytorch or slurm")
    if args.launcher != "none" and args.jobs > 1:
        parser.error(f"--jobs {args.jobs}: goes without a launcher; under Slurm give --max-running")
    if args.launcher != "slurm" and (args.partition or args.time or args.max_running or args.sbatch_args):
        parser.error("--partition, --time, --max-running and --sbatch-args go with --launcher slurm")
    return args


def chosen(grid: Grid, names: list[str] | None, cell_name: str | None) -> list[Cell]:
    """The cells of the checkpoints and of the trainings that are named, with the pre-trainings that they need."""
    cells = grid.cells()
    if cell_name:
        found = [cell for cell in cells if cell.name == cell_name]
        if not found:
            raise MTAdaptError(f"--cell {cell_name}: {grid.zoo.path} has no such cell; --dry-run lists them")
        return found
    if not names:
        return cells
    checkpoints = {each.name for each in grid.zoo.checkpoints}
    trainings = {each.name for each in (*grid.zoo.paradigms, *grid.zoo.single_task)}
    unknown = set(names) - checkpoints - trainings
    if unknown:
        known = ", ".join([*sorted(checkpoints), *sorted(trainings)])
        raise MTAdaptError(f"--only {' '.join(sorted(unknown))}: {grid.zoo.path} has {known}")
    kept = [
        cell
        for cell in cells
        if cell.kind != "pretrain"
        and cell.checkpoint.name in (checkpoints & set(names) or checkpoints)
        and cell.training.name in (trainings & set(names) or trainings)
    ]
    needed = {cell.needs for cell in kept}
    return [cell for cell in cells if cell in needed or cell in kept]


def write_reports(grid: Grid) -> None:
    """Write the report of all results."""
    for path in write_report(grid.root, grid.root / REPORT):
        print(path)


def run_here(grid: Grid, cells: list[Cell], args: argparse.Namespace) -> int:
    """Run the cells on this machine and list those that failed."""
    launch = Launch(TRAIN, (args.gpus or 1) if args.launcher == "pytorch" else 0, args.retries)
    try:
        outcomes = run_locally(grid, cells, launch, args.jobs)
    except KeyboardInterrupt:
        print("stopped; the same command resumes what was running")
        return 130
    failed = {cell: result for cell, result in outcomes.items() if result and result.status == "failed"}
    elsewhere = [cell for cell, result in outcomes.items() if result is None]
    for cell, result in failed.items():
        print(f"FAILED {cell.name}: {result.error} ({grid.folder(cell) / LOG})")
    line = f"{len(failed)} of {len(outcomes)} cells failed"
    print(line + (f", {len(elsewhere)} are left to another call of the tool" if elsewhere else ""))
    if not args.cell:
        write_reports(grid)
    return int(bool(failed))


def submit_jobs(grid: Grid, cells: list[Cell], args: argparse.Namespace) -> None:
    """Hand what is not finished to Slurm."""
    plan = Plan(grid, cells)
    waiting = [cell for cell in cells if plan.state(cell) != "finished"]
    if not waiting:
        print(f"all {len(cells)} cells are finished")
        write_reports(grid)
        return
    options = ["--retries", str(args.retries), *(["--trust-checkpoint"] if args.trust_checkpoint else [])]
    slurm = Slurm(
        tool=Path(__file__).resolve(),
        gpus=args.gpus or 1,
        cpus_per_gpu=args.cpus_per_gpu,
        partition=args.partition,
        time=args.time,
        max_running=args.max_running,
        flags=shlex.split(args.sbatch_args),
        options=options,
    )
    print("\n".join(submit(grid, waiting, slurm)))


def main() -> int:
    """Run the benchmark; return 1 if a run has failed."""
    args = parse_args()
    grid = Grid(read_zoo(args.zoo), args.work_dir, args.trust_checkpoint)
    cells = chosen(grid, args.only, args.cell)
    if args.collect:
        print(f"{collect(grid, cells, args.collect)} finished cells in {args.collect}")
    elif args.report:
        write_reports(grid)
    elif args.dry_run:
        print("\n".join([*check(grid, cells, download=False), Plan(grid, cells, args.gpus or grid.zoo.gpus).table()]))
    else:
        print("\n".join(check(grid, cells)), flush=True)
        if args.launcher == "slurm":
            submit_jobs(grid, cells, args)
        else:
            return run_here(grid, cells, args)
    return 0


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
