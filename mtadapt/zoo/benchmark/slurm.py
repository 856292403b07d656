"""Hand the cells to Slurm as job arrays."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mtadapt
from mtadapt.errors import MTAdaptError
from mtadapt.zoo.benchmark.grid import Cell, Grid

#: Folder of the scripts and of the output of the jobs, below that of the runs.
FOLDER = "slurm"


@dataclass(frozen=True)
class Slurm:
    """How jobs are submitted.

    Args:
        tool: ``tools/benchmark_pretrained.py``.
        gpus: of a run, on one machine.
        cpus_per_gpu: cores for each of them.
        partition: of the jobs; None for the default one of the cluster.
        time: limit of a run, as Slurm writes it; None for that of the partition.
        max_running: runs at a time; None for no limit.
        flags: further flags of ``sbatch``, for all jobs.
        options: further flags of the tool, for every run.
    """

    tool: Path
    gpus: int = 1
    cpus_per_gpu: int = 5
    partition: str | None = None
    time: str | None = None
    max_running: int | None = None
    flags: Sequence[str] = field(default_factory=tuple)
    options: Sequence[str] = field(default_factory=tuple)


def submit(grid: Grid, cells: Sequence[Cell], slurm: Slurm) -> list[str]:
    """Submit one job array of the transfers, before it one of the pre-trainings, and at last the report.

    A transfer starts when all pre-trainings are over, finished or not; those of one that failed are recorded as
    failed. A run that is requeued resumes.

    Args:
        grid: the benchmark.
        cells: to be run.
        slurm: how.

    Returns:
        A line for every job.

    Raises:
        MTAdaptError: when ``sbatch`` is not there or refuses a job.
    """
    folder = grid.root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "pretrain": [cell for cell in cells if cell.kind == "pretrain"],
        "transfers": [cell for cell in cells if cell.kind != "pretrain"],
    }
    before: str | None = None
    lines = []
    for name, members in arrays.items():
        if not members:
            continue
        script = folder / f"{name}.sh"
        script.write_text(_array_script(grid, members, name, slurm))
        limit = f"%{slurm.max_running}" if slurm.max_running else ""
        before = _sbatch(script, [f"--array=0-{len(members) - 1}{limit}"], before, slurm)
        lines.append(f"{name}: {len(members)} runs, job {before} ({script})")
    script = folder / "report.sh"
    script.write_text(_script(grid, "report", slurm, ["--report"], resources=["--cpus-per-task=1"]))
    job = _sbatch(script, [], before, slurm)
    return [*lines, f"report: job {job} ({script})"]


def _array_script(grid: Grid, cells: Sequence[Cell], name: str, slurm: Slurm) -> str:
    resources = [f"--cpus-per-task={slurm.cpus_per_gpu * slurm.gpus}", f"--gres=gpu:{slurm.gpus}", "--requeue"]
    resources += [f"--time={slurm.time}"] if slurm.time else []
    flags = ["--cell", '"${cells[$SLURM_ARRAY_TASK_ID]}"', *map(shlex.quote, slurm.options)]
    if slurm.gpus > 1:
        flags += ["--launcher", "pytorch", "--gpus", str(slurm.gpus)]
    names = "\n".join(f"    {cell.name}" for cell in cells)
    return _script(grid, name, slurm, flags, resources, f"cells=(\n{names}\n)\n")


def _script(
    grid: Grid, name: str, slurm: Slurm, flags: Sequence[str], resources: Sequence[str], before: str = ""
) -> str:
    """A batch script that runs the tool in the folder and with the Python of this process."""
    output = grid.root / FOLDER / (f"{name}_%A_%a.txt" if before else f"{name}_%j.txt")
    settings = [f"--job-name={grid.zoo.name}_{name}", f"--output={output}", "--open-mode=append", "--nodes=1"]
    settings += ["--ntasks=1", *resources]
    settings += [f"--partition={slurm.partition}"] if slurm.partition else []
    package = Path(mtadapt.__file__).resolve().parents[1]
    fixed = [sys.executable, str(slurm.tool), str(grid.zoo.path), "--work-dir", str(grid.root)]
    lines = [
        "#!/usr/bin/env bash",
        *(f"#SBATCH {setting}" for setting in settings),
        "set -euo pipefail",
        f"cd {shlex.quote(str(Path.cwd()))}",
        f'export PYTHONPATH={shlex.quote(str(package))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
    ]
    # exec, so that Slurm's SIGTERM, e.g. at the time limit, reaches the tool, which ends its run with it.
    return "\n".join(lines) + f"\n{before}exec {shlex.join(fixed)} {' '.join(flags)}\n"


def _sbatch(script: Path, flags: Sequence[str], after: str | None, slurm: Slurm) -> str:
    """Submit a script and return the number of its job."""
    command = ["sbatch", "--parsable", *flags, *slurm.flags]
    command += [f"--dependency=afterany:{after}"] if after else []
    try:
        done = subprocess.run([*command, str(script)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise MTAdaptError(
            "--launcher slurm: there is no sbatch on PATH; run it on a login node of the cluster"
        ) from error
    if done.returncode or not done.stdout.strip():
        reason = (done.stderr.strip() or "no number of a job").splitlines()[-1]
        raise MTAdaptError(f"--launcher slurm: {shlex.join(command)} {script}: {reason}")
    # With several clusters the name of the cluster follows behind a semicolon.
    return done.stdout.strip().splitlines()[-1].split(";")[0]
