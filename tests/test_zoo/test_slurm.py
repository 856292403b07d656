"""Cells are handed to Slurm; a program named ``sbatch`` records the jobs and runs them as Slurm would."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from mtadapt.errors import MTAdaptError
from mtadapt.zoo.benchmark import Grid, Slurm, read_zoo, submit
from tests.test_zoo.zoo_files import write_zoo

ZOO = """name: cluster
paradigms:
  finetune: a.py
checkpoints:
  - name: own
    pretrain: a.py
  - name: random
    checkpoint: null
"""

# Prints a number of a job, as sbatch --parsable does; the flags in the script are those of the command line too.
SBATCH = """#!{python}
import json, re, subprocess, sys, os
from pathlib import Path
log = Path("jobs.json")
jobs = json.loads(log.read_text()) if log.is_file() else []
script = Path(sys.argv[-1])
inside = re.findall("^#SBATCH (.*)$", script.read_text(), re.M)
assert os.environ.get("REFUSE") is None, "invalid partition"
array = [re.match("--array=0-([0-9]+)", flag) for flag in sys.argv[1:-1] if flag.startswith("--array")]
tasks = range(int(array[0][1]) + 1) if array else [None]
printed = []
for task in tasks:
    env = dict(os.environ) if task is None else dict(os.environ, SLURM_ARRAY_TASK_ID=str(task))
    done = subprocess.run(["bash", str(script.resolve())], env=env, cwd="/", capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    printed.append(done.stdout)
jobs.append(dict(flags=sys.argv[1:-1], inside=inside, printed=printed))
log.write_text(json.dumps(jobs))
print(f"{{100 + len(jobs)}};cluster" if len(jobs) == 1 else 100 + len(jobs))
"""
# In the place of the tool: tells how it was called.
TOOL = "import json, os, sys; print(json.dumps([os.getcwd(), *sys.argv[1:]]))"


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    sbatch = tmp_path / "bin/sbatch"
    sbatch.write_text(SBATCH.format(python=sys.executable))
    sbatch.chmod(0o755)
    (tmp_path / "tool.py").write_text(TOOL)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return Grid(read_zoo(write_zoo(tmp_path, ZOO).relative_to(tmp_path)))


def test_one_array_for_each_kind_and_the_report(grid: Grid, tmp_path: Path):
    slurm = Slurm(
        tool=tmp_path / "tool.py",
        gpus=2,
        cpus_per_gpu=3,
        partition="gpu",
        time="1:00:00",
        max_running=4,
        flags=["--account=vision lab"],
        options=["--retries", "2"],
    )
    lines = submit(grid, grid.cells(), slurm)
    assert lines == [
        "pretrain: 1 runs, job 101 (work_dirs/zoo_cluster/slurm/pretrain.sh)",
        "transfers: 2 runs, job 102 (work_dirs/zoo_cluster/slurm/transfers.sh)",
        "report: job 103 (work_dirs/zoo_cluster/slurm/report.sh)",
    ]
    pretrain, transfers, report = json.loads(Path("jobs.json").read_text())
    assert pretrain["flags"] == ["--parsable", "--array=0-0%4", "--account=vision lab"]
    assert transfers["flags"] == ["--parsable", "--array=0-1%4", "--account=vision lab", "--dependency=afterany:101"]
    assert report["flags"] == ["--parsable", "--account=vision lab", "--dependency=afterany:102"]
    assert transfers["inside"] == [
        "--job-name=cluster_transfers",
        "--output=work_dirs/zoo_cluster/slurm/transfers_%A_%a.txt",
        "--open-mode=append",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=6",
        "--gres=gpu:2",
        "--requeue",
        "--time=1:00:00",
        "--partition=gpu",
    ]
    assert "--gres" not in " ".join(report["inside"]) and "--cpus-per-task=1" in report["inside"]
    start = [str(tmp_path), "zoo.yaml", "--work-dir", "work_dirs/zoo_cluster"]
    cells = ["multi_task/full/finetune/random/seed0", "multi_task/full/finetune/own/seed0"]
    assert [json.loads(line) for line in transfers["printed"]] == [
        [*start, "--cell", cell, "--retries", "2", "--launcher", "pytorch", "--gpus", "2"] for cell in cells
    ]
    assert json.loads(pretrain["printed"][0])[4:6] == ["--cell", "pretrain/own/seed0"]
    assert json.loads(report["printed"][0]) == [*start, "--report"]


def test_without_pretraining_and_limits(grid: Grid, tmp_path: Path):
    submit(
        grid, [cell for cell in grid.cells() if not cell.needs and cell.kind != "pretrain"], Slurm(tmp_path / "tool.py")
    )
    transfers, report = json.loads(Path("jobs.json").read_text())
    assert transfers["flags"] == ["--parsable", "--array=0-0"]
    assert json.loads(transfers["printed"][0])[4:] == ["--cell", "multi_task/full/finetune/random/seed0"]
    assert report["flags"] == ["--parsable", "--dependency=afterany:101"]


def test_refused(grid: Grid, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("REFUSE", "1")
    with pytest.raises(MTAdaptError, match=r"^--launcher slurm: sbatch --parsable --array=0-0 .*invalid partition$"):
        submit(grid, grid.cells(), Slurm(tmp_path / "tool.py"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MTAdaptError, match=r"^--launcher slurm: there is no sbatch on PATH; run"):
        submit(grid, grid.cells(), Slurm(tmp_path / "tool.py"))
