"""Train every config of a folder with several seeds, and collect their logs for a table of mean and spread.

    python tools/analysis_tools/compare_runs.py run configs/camvid_adaptation --seeds 0 1 2 --jobs 2
    python tools/analysis_tools/compare_runs.py collect configs/camvid_adaptation docs/logs/camvid_adaptation
    python tools/analysis_tools/results_table.py docs/logs/camvid_adaptation/*/*.json

"run" can be stopped at any time: the same command leaves out what is finished and resumes the rest. "collect" copies
the scalars of finished runs, one file a run. "--options" overrides settings of all runs; {config} and {seed} in them
stand for the config's name and the seed, so that runs can start from those of another folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.runs.parallel import in_parallel
from mtadapt.runs.processes import LOG, Processes, locked, training_command
from mtadapt.runs.scalars import scalar_logs

TRAIN = Path(__file__).parents[1] / "train.py"
FINISHED, RECIPE = "finished", "recipe.sha256"


def configs_of(folder: Path, names: Sequence[str] | None) -> list[Path]:
    """The configs of a folder, or those of them that are named."""
    found = {path.stem: path for path in sorted(folder.glob("*.py"))}
    if not found:
        raise MTAdaptError(f"{folder}: holds no config")
    unknown = set(names or ()) - set(found)
    if unknown:
        raise MTAdaptError(f"--only {' '.join(sorted(unknown))}: {folder} has {', '.join(found)}")
    return [found[name] for name in names] if names else list(found.values())


def run_one(config: Path, seed: int, work_dir: Path, options: Sequence[str], env: dict, processes: Processes) -> bool:
    """Train a config with a seed, unless that is finished; return whether it is."""
    finished, recipe = work_dir / FINISHED, work_dir / RECIPE
    options = [each.replace("{config}", config.stem).replace("{seed}", str(seed)) for each in options]
    digest = hashlib.sha256("\n".join([Config.fromfile(config).pretty_text, *options]).encode()).hexdigest()
    if recipe.is_file() and recipe.read_text() != digest:
        raise MTAdaptError(
            f"{work_dir} was trained with another {config}; remove the folder, or name another --work-dir"
        )
    if finished.is_file():
        return True
    start = time.time()
    flags = ["--cfg-options", f"randomness.seed={seed}", *options]
    work_dir.mkdir(parents=True, exist_ok=True)
    recipe.write_text(digest)
    with locked(work_dir) as lock:
        if lock is None:
            raise MTAdaptError(f"{work_dir}: another call of this tool is at it; wait for it")
        code = processes.run(training_command(TRAIN, config, work_dir, flags), work_dir / LOG, env, lock)
    if code == 0:
        finished.touch()
    print(f"{config.stem} seed {seed}: exit {code} after {time.time() - start:.0f} s ({work_dir})", flush=True)
    return code == 0


def run(args: argparse.Namespace) -> None:
    """Train all that is not finished."""
    jobs = [(config, seed) for seed in args.seeds for config in configs_of(args.configs, args.only)]
    env = dict(OMP_NUM_THREADS=str(max(1, (os.cpu_count() or 1) // args.jobs)))
    root, processes = work_dir_of(args), Processes()

    def job(pair: tuple[Path, int]) -> bool:
        config, seed = pair
        return run_one(config, seed, root / config.stem / f"seed{seed}", args.options, env, processes)

    done = list(in_parallel(job, jobs, args.jobs, processes).values())
    if not all(done):
        raise MTAdaptError(f"{done.count(False)} of {len(done)} runs failed; see {LOG} in their folders of {root}")


def collect(args: argparse.Namespace) -> None:
    """Copy the scalars of finished runs."""
    root = work_dir_of(args)
    finished = sorted(root.glob(f"*/seed*/{FINISHED}"))
    if not finished:
        raise MTAdaptError(f"{root}: no run is finished")
    for path in finished:
        target = args.logs / path.parent.parent.name / f"{path.parent.name}.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(log.read_text() for log in scalar_logs(path.parent)))
    print(f"{len(finished)} runs in {args.logs}")


def work_dir_of(args: argparse.Namespace) -> Path:
    """Where the runs of a folder of configs are."""
    return args.work_dir or Path("work_dirs", args.configs.resolve().name)


def main() -> None:
    """Run one subcommand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("run", "collect"):
        command = commands.add_parser(name)
        command.add_argument("configs", type=Path, help="folder of configs")
        command.add_argument("--work-dir", type=Path, help="folder of the runs (default: work_dirs/<folder's name>)")
        if name == "run":
            command.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
            command.add_argument("--jobs", type=int, default=1, help="runs at a time")
            command.add_argument("--only", nargs="+", help="names of configs")
            command.add_argument("--options", nargs="+", default=[], help="as --cfg-options, with {config} and {seed}")
        else:
            command.add_argument("logs", type=Path, help="folder for the logs")
    args = parser.parse_args()
    dict(run=run, collect=collect)[args.command](args)


if __name__ == "__main__":
    with one_line_errors():
        main()
