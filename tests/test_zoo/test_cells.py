"""Cells are run, resumed, retried and recorded; the trainings are stand-ins that end as the test says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mmengine.config import Config

from mtadapt.errors import MTAdaptError
from mtadapt.runs.processes import Processes, Stopped, locked, reason_of, training_command
from mtadapt.runs.scalars import last_validation
from mtadapt.zoo.benchmark import Cell, Grid, Launch, Plan, check, collect, read_zoo, run_locally
from mtadapt.zoo.benchmark.cell import of_task
from mtadapt.zoo.benchmark.plan import Work, schedule
from mtadapt.zoo.results import CellResult, read_result, read_results
from tests.command_line import ROOT
from tests.test_zoo.zoo_files import STAND_IN, write_zoo

ZOO = """name: cells
protocol: toy
reference: random
paradigms:
  finetune: a.py
checkpoints:
  - name: random
    checkpoint: null
  - name: imagenet
    checkpoint: package:efficientnet-lite0
    source: a page
    options: {behaviour: BEHAVIOUR}
"""
FINETUNE = "multi_task/full/finetune"


@pytest.fixture
def launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launch:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    tool = tmp_path / "stand_in.py"
    tool.write_text(STAND_IN)
    return Launch(tool, retries=1)


def grid_of(behaviour: str, text: str = ZOO, work_dir: Path | None = None) -> Grid:
    return Grid(read_zoo(write_zoo(Path.cwd(), text.replace("BEHAVIOUR", behaviour)).relative_to(Path.cwd())), work_dir)


def run(grid: Grid, launch: Launch, jobs: int = 2) -> dict[str, CellResult | None]:
    return {cell.name: result for cell, result in run_locally(grid, grid.cells(), launch, jobs).items()}


def starts(grid: Grid, name: str) -> int:
    return int((grid.root / name / "starts").read_text())


def test_result_of_a_cell(launch: Launch, capsys: pytest.CaptureFixture):
    grid = grid_of("finish")
    results = run(grid, launch)
    assert [*results] == [f"{FINETUNE}/random/seed0", f"{FINETUNE}/imagenet/seed0"]
    imagenet = grid.root / FINETUNE / "imagenet/seed0"
    assert read_result(imagenet / "result.json") == results[f"{FINETUNE}/imagenet/seed0"]
    assert results[f"{FINETUNE}/imagenet/seed0"] == CellResult(
        zoo="cells",
        kind="multi_task",
        checkpoint="imagenet",
        paradigm="finetune",
        label_setting="full",
        seed=0,
        status="finished",
        attempts=1,
        tasks=("det",),
        metrics={"det/bbox_mAP": 0.25},
        seconds=60.0,
        devices=2,
        device="toy",
        parameters=10,
        trainable={"train": 4},
        weights=dict(source="package:efficientnet-lite0", sha256="ab" * 32),
        protocol="toy",
        reference="random",
        source="a page",
    )
    log = (imagenet / "output.txt").read_text().splitlines()
    # The command is the one that a user would type, and runs by hand.
    assert log[0] == f"$ {sys.executable} {launch.tool} {imagenet}/config.py --work-dir {imagenet} --resume"
    assert log[1] == f"OMP_NUM_THREADS {max(1, len(os.sched_getaffinity(0)) // 2)} CUDA None"
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "0 of 2 cells are finished, 2 to run, 2 at a time"
    assert {line[6:] for line in printed if line.startswith("[")} == {
        f"{FINETUNE}/random/seed0: finished, 60 s of training",
        f"{FINETUNE}/imagenet/seed0: finished, 60 s of training",
    }
    # A second call starts nothing.
    assert run(grid_of("finish"), launch) == results
    assert starts(grid, f"{FINETUNE}/imagenet/seed0") == 1
    assert capsys.readouterr().out.splitlines() == ["2 of 2 cells are finished, 0 to run, 2 at a time"]


def test_stages(launch: Launch):
    """The last stage's metrics, the time of all, the trainable parameters of each."""
    text = ZOO.replace("{behaviour", "{stages: [{name: adapt}, {name: finetune}], behaviour")
    results = run(grid_of("finish", text), launch)
    result = results[f"{FINETUNE}/imagenet/seed0"]
    assert result is not None
    assert (result.metrics, result.seconds) == ({"det/bbox_mAP": 0.375}, 120.0)
    assert result.trainable == {"adapt": 4, "finetune": 5} and result.weights is not None


@pytest.mark.parametrize(
    ("behaviour", "attempts", "error"),
    [
        (
            "crash",
            2,
            "ValueError: work_dirs/zoo_cells/multi_task/full/finetune/imagenet/seed0/x is bad (exit status 1)",
        ),
        ("shaky", 2, None),
        ("killed", 2, "step 7 (signal 9)"),
        ("blind", 2, "the run has left no validation; give the config val_dataloader, val_evaluator and val_cfg"),
        ("forget", 2, "the run has left no backbone_weights.json: nothing shows that the checkpoint was loaded"),
    ],
)
def test_failures_are_recorded_and_the_rest_goes_on(
    behaviour: str, attempts: int, error: str | None, launch: Launch, capsys: pytest.CaptureFixture
):
    grid = grid_of(behaviour, ZOO + "  - name: later\n    checkpoint: null\n")
    results = run(grid, launch, jobs=1)
    result = results[f"{FINETUNE}/imagenet/seed0"]
    assert result is not None
    assert (result.status, result.error) == ("failed" if error else "finished", error)
    assert result.attempts == starts(grid, f"{FINETUNE}/imagenet/seed0") == attempts
    assert bool(result.metrics) == (error is None)
    others = [results[f"{FINETUNE}/{name}/seed0"] for name in ("random", "later")]
    assert [other.status for other in others if other] == ["finished", "finished"]
    if error:
        assert f"{FINETUNE}/imagenet/seed0: failed: {error}" in capsys.readouterr().out
        # The next call starts it again, and it alone.
        again = run(grid, Launch(launch.tool, retries=0), jobs=1)[f"{FINETUNE}/imagenet/seed0"]
        assert again is not None and again.attempts == 3
        assert starts(grid, f"{FINETUNE}/later/seed0") == 1


PRETRAIN = """name: cells
paradigms:
  finetune: a.py
seeds: [0, 1]
checkpoints:
  - name: own
    pretrain: {config: a.py, options: {behaviour: BEHAVIOUR}}
  - name: random
    checkpoint: null
"""


def test_transfers_start_from_the_pretraining_of_their_seed(launch: Launch):
    grid = grid_of("blind", PRETRAIN)
    results = run(grid, launch)
    assert [name for name, result in results.items() if result and result.status == "finished"] == [*results]
    assert len(results) == 6
    pretrain = results["pretrain/own/seed1"]
    # Without a validation, which a pre-training need not have.
    assert pretrain is not None and (pretrain.metrics, pretrain.weights) == ({}, None)
    transfer = results[f"{FINETUNE}/own/seed1"]
    assert transfer is not None and transfer.weights is not None
    assert transfer.weights["source"] == "work_dirs/zoo_cells/pretrain/own/seed1"
    ended = (grid.root / "pretrain/own/seed1/result.json").stat().st_mtime
    assert (grid.root / FINETUNE / "own/seed1/starts").stat().st_mtime > ended


def test_transfers_of_a_failed_pretraining(launch: Launch):
    grid = grid_of("crash", PRETRAIN)
    results = run(grid, launch)
    transfer = results[f"{FINETUNE}/own/seed0"]
    assert transfer is not None and (transfer.status, transfer.attempts) == ("failed", 0)
    assert transfer.error == (
        "the pre-training pretrain/own/seed0 is not finished: ValueError: work_dirs/zoo_cells/pretrain/own/seed0/x is "
        "bad (exit status 1)"
    )
    assert not (grid.root / FINETUNE / "own/seed0/output.txt").exists()
    random = results[f"{FINETUNE}/random/seed0"]
    assert random is not None and random.status == "finished"


def test_another_recipe_is_refused(launch: Launch):
    run(grid_of("finish"), launch)
    grid = grid_of("finish", ZOO.replace("finetune: a.py", "finetune: {config: a.py, options: {a: 1}}"))
    with pytest.raises(MTAdaptError) as caught:
        check(grid, grid.cells())
    assert str(caught.value) == (
        f"work_dirs/zoo_cells/{FINETUNE}/random/seed0: was run with other settings than those of zoo.yaml:5 and "
        "zoo.yaml:7; remove the folder, or name another --work-dir"
    )


def test_a_mistake_is_mended_in_the_zoo_file(launch: Launch):
    name = f"{FINETUNE}/imagenet/seed0"
    assert (result := run(grid_of("crash"), launch)[name]) is not None and result.status == "failed"
    grid = grid_of("finish")
    # What the failed run left behind says nothing of the other one.
    stale = grid.root / name / "vis_data" / "scalars.json"
    stale.parent.mkdir()
    stale.touch()
    assert Plan(grid, grid.cells()).state(grid.cells()[1]) == "run"
    assert (result := run(grid, launch)[name]) is not None and result.status == "finished"
    assert result.attempts == 1 and not stale.exists()
    # With a checkpoint it would go on from the weights of other settings.
    run(grid_of("crash", work_dir=Path("other")), launch)
    (Path("other", name) / "epoch_1.pth").touch()
    with pytest.raises(MTAdaptError, match=r"was run with other settings"):
        run(grid_of("finish", work_dir=Path("other")), launch)


def test_another_content_of_the_checkpoint_is_refused(launch: Launch):
    """The stand-in says that it had loaded a file with the hash abab..."""
    grid = grid_of("finish")
    run(grid, launch)
    with pytest.raises(MTAdaptError) as caught:
        check(grid, grid.cells())
    assert str(caught.value) == (
        "zoo.yaml:9: package:efficientnet-lite0 has SHA-256 57934424, but "
        f"work_dirs/zoo_cells/{FINETUNE}/imagenet/seed0 was run with abababab; remove the folder, or name another "
        "--work-dir"
    )


def test_two_calls_at_once(launch: Launch, capsys: pytest.CaptureFixture):
    grid = grid_of("finish")
    folder = grid.root / FINETUNE / "imagenet/seed0"
    folder.mkdir(parents=True)
    with locked(folder) as lock:
        assert lock is not None
        assert Plan(grid, grid.cells()).state(grid.cells()[1]) == "running"
        assert run(grid, launch)[f"{FINETUNE}/imagenet/seed0"] is None
    assert "imagenet/seed0: left to another call of the tool, which is at it" in capsys.readouterr().out
    result = run(grid, launch)[f"{FINETUNE}/imagenet/seed0"]
    assert result is not None and result.attempts == 1


def test_stopping_ends_the_runs_with_all_their_processes(launch: Launch):
    grid = grid_of("sleep")
    folder = grid.root / FINETUNE / "imagenet/seed0"
    processes, stopped = Processes(), []

    def train() -> None:
        folder.mkdir(parents=True)
        try:
            processes.run([sys.executable, "-c", "import time; time.sleep(600)"], folder / "other.txt")
        except Stopped:
            stopped.append(True)

    thread = threading.Thread(target=train)
    thread.start()
    code = f"""
from pathlib import Path
from mtadapt.zoo.benchmark import Grid, Launch, read_zoo, run_locally
grid = Grid(read_zoo(Path("zoo.yaml")))
run_locally(grid, grid.cells(), Launch(Path({str(launch.tool)!r})), 2)
"""
    tool = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    files = [folder / "child", folder / "parent"]
    _wait_for(lambda: all(file.is_file() and file.read_text() for file in files), 120)
    tool.terminate()
    assert tool.wait(60) != 0
    for file in files:
        _wait_for(lambda file=file: not Path("/proc", file.read_text(), "cmdline").is_file() or _is_zombie(file), 20)
    # An interrupted run is no failed one, and keeps the config that it was started with.
    assert not (folder / "result.json").exists()
    assert "behaviour = 'sleep'" in (folder / "config.py").read_text()
    assert Plan(grid, grid.cells()).state(grid.cells()[1]) == "run"
    processes.stop()
    thread.join(20)
    assert stopped == [True]
    with pytest.raises(Stopped):
        processes.run(["true"], folder / "other.txt")


def _wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def _is_zombie(file: Path) -> bool:
    try:
        return Path("/proc", file.read_text(), "stat").read_text().split(")")[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_metrics_of_a_stock_single_task_model(launch: Launch):
    text = ZOO.replace(
        "checkpoints:", "single_task:\n  det: {config: a.py, options: {behaviour: single}}\ncheckpoints:"
    )
    results = run(grid_of("finish", text.replace("    options: {behaviour: BEHAVIOUR}\n", "")), launch)
    single = results["single_task/full/det/imagenet/seed0"]
    assert single is not None
    assert (single.kind, single.paradigm, single.tasks) == ("single_task", "det", ("det",))
    assert single.metrics == {"det/bbox_mAP": 0.5, "det/mIoU": 40.0}
    assert of_task("cls", "accuracy/top1") == "cls/top1"
    assert of_task("sem_seg", "sem_seg/mIoU") == "sem_seg/mIoU"


def test_collect(launch: Launch):
    work_dir = Path.cwd() / "far/away"
    grid = grid_of(
        "crash", PRETRAIN.replace("pretrain: {config: a.py, options: {behaviour: BEHAVIOUR}}", "pretrain: a.py")
    )
    with pytest.raises(MTAdaptError, match=r"work_dirs/zoo_cells: no cell is finished; run tools/benchmark_pretr"):
        collect(grid, grid.cells(), Path("logs"))
    grid = Grid(grid.zoo, work_dir)
    run(grid, launch)
    assert collect(grid, grid.cells(), Path("logs")) == 6
    found = read_results(Path("logs"))
    assert len(found) == 6 and {result.log for result in found.values()} == {"scalars.json"}
    first, second = (Path("logs", FINETUNE, "own", seed) for seed in ("seed0", "seed1"))
    assert {path.name for path in first.iterdir()} == {"result.json", "config.py", "scalars.json"}
    assert {path.name for path in second.iterdir()} == {"result.json", "scalars.json"}
    assert (second / read_result(second / "result.json").config).resolve() == (first / "config.py").resolve()
    assert last_validation([second / "scalars.json"]) == {"det/bbox_mAP": 0.25}
    config = Config.fromfile(first / "config.py")
    assert config.default_hooks.backbone_weights.checkpoint == "work_dirs/zoo_cells/pretrain/own/seed0"
    assert config.work_dir == f"work_dirs/zoo_cells/{FINETUNE}/own/seed0"
    assert not [path for path in Path("logs").rglob("*.*") if path.is_file() and str(Path.cwd()) in path.read_text()]


def test_reason_behind_the_page_of_torchrun(tmp_path: Path):
    log = tmp_path / "output.txt"
    page = "Traceback\ntorch.distributed.elastic.ChildFailedError: \n=====\nRoot Cause:\n  exitcode : 1\n====="
    log.write_text(
        "$ python -m torch.distributed.run tools/train.py\nerror: of the first start\n"
        f"$ python -m torch.distributed.run tools/train.py\nstep 1\n[rank1]: KeyError: 'x'\n{page}\n"
    )
    assert reason_of(log, 1) == "[rank1]: KeyError: 'x' (exit status 1)"
    log.write_text("$ python tools/train.py\n")
    assert reason_of(log, -9) == "it printed nothing (signal 9)"


def test_command_with_a_launcher():
    command = training_command(Path("train.py"), Path("c.py"), Path("w"), ["--amp"], processes=4)
    assert command[1:] == [
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=4", "train.py", "c.py"),
        *("--work-dir", "w", "--resume", "--launcher", "pytorch", "--amp"),
    ]


def test_steps_and_images_a_step():
    """Ten images in batches of four on two devices are two steps an epoch."""
    epochs = Config(dict(train_cfg=dict(max_epochs=3)))
    assert schedule(epochs, dict(batch_size=4), 10, 2) == (6, 8)
    iterations = Config(dict(train_cfg=dict(max_iters=7)))
    sizes = dict(batch_size=dict(a=2, b=6))
    assert schedule(iterations, dict(batch_sampler=dict(mode="mixed", **sizes)), 10, 2) == (7, 16)
    assert schedule(iterations, dict(batch_sampler=sizes), 10, 1) == (7, 4)
    assert Work(steps=6, batch=8, gflops=0.5).training_gflops == 6 * 8 * 0.5 * 3
    assert Work(steps=6, batch=8, gflops=None).training_gflops is None


def test_estimates(launch: Launch):
    """Hours of what is finished, of its like, and from the computation where nothing is known."""
    grid = grid_of("finish", ZOO + "hardware: {tflops: 0.5}\n")
    cells = grid.cells()
    run_locally(grid, cells[:1], launch)
    plan = Plan(grid, cells)
    assert [plan.state(cell) for cell in cells] == ["finished", "run"]
    # 60 seconds on two devices.
    assert plan.hours(cells[0], None) == (pytest.approx(120 / 3600), "measured")
    assert plan.hours(cells[1], None) == (pytest.approx(120 / 3600), "from finished cells")
    other = Cell("multi_task", grid.zoo.paradigms[0], grid.zoo.checkpoints[0], 7, "full")
    assert Plan(grid, [other]).hours(other, None) is None
    # There is no data set, so there are no steps.
    assert plan.work(cells[1]) is None
    assert plan.table().splitlines()[-1] == "2 cells: 1 finished, 1 run; about 0.0333 device hours to go"
    (grid.root / FINETUNE / "imagenet/seed0").mkdir(parents=True)
    (grid.root / FINETUNE / "imagenet/seed0/last_checkpoint").write_text("x")
    assert plan.state(cells[1]) == "resume"
    failed = json.loads((grid.root / FINETUNE / "random/seed0/result.json").read_text()) | dict(status="failed")
    (grid.root / FINETUNE / "random/seed0/result.json").write_text(json.dumps(failed))
    assert Plan(grid, cells).state(cells[0]) == "retry"
