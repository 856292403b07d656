"""The benchmark from the command line, with real trainings on a few rendered scenes."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.zoo.results import read_results
from tests.command_line import ROOT, last_line, run

TOOL = ROOT / "tools/benchmark_pretrained.py"
CONFIG = """
_base_ = "{base}"
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root="data"))
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root="data"))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs={epochs}, val_interval={epochs})
"""
STAGES = """
model = dict(adapter=dict(type="MultiScaleAdapter", in_channels=96))
stages = [
    dict(name="adapt", freeze=["backbone"], length=1, param_scheduler=[]),
    dict(name="finetune", param_scheduler=[]),
]
"""
ZOO = """name: tiny
protocol: four scenes
reference: random
seeds: [3]
paradigms:
  adapt_finetune: adapt.py
single_task:
  det: det.py
hardware: {tflops: 0.01}
checkpoints:
  - name: random
    checkpoint: null
  - name: imagenet
    checkpoint: package:efficientnet-lite0
  - name: own
    pretrain: {config: plain.py, options: {model.backbone.pretrained: null}}
  - name: broken
    checkpoint: null
    options: {train_dataloader.dataset.data_root: nowhere}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_bdd100k(tmp_path / "data", train=4, val=2, size=(160, 96), seed=1, workers=1)
    base = ROOT / "configs/mt_synthetic_baseline.py"
    (tmp_path / "plain.py").write_text(CONFIG.format(base=base, epochs=1))
    (tmp_path / "adapt.py").write_text(CONFIG.format(base=base, epochs=2) + STAGES)
    stock = CONFIG.format(base=ROOT / "configs/zoo/synthetic/single_det.py", epochs=2)
    (tmp_path / "det.py").write_text(stock.replace("max_epochs", "max_iters"))
    (tmp_path / "zoo.yaml").write_text(ZOO)
    return tmp_path


@pytest.mark.slow
def test_a_small_zoo(folder: Path):
    printed = run(TOOL, "zoo.yaml", "--dry-run", cwd=folder)
    # Of the two broken cells, whose data is not there, nothing is known.
    summary = next(line for line in printed.splitlines() if line.startswith("9 cells: 9 run; about "))
    assert summary.endswith(" device hours to go, and 2 cells of unknown length")
    # Two steps of two images an epoch; one epoch, and two in stages.
    assert re.search(r"^\| pretrain/own/seed3 +\| run +\| +2 \|", printed, re.M)
    assert re.search(r"^\| multi_task/full/adapt_finetune/own/seed3 +\| run +\| +4 \|", printed, re.M)
    assert not (folder / "work_dirs").exists()

    printed = run(TOOL, "zoo.yaml", "--jobs", "2", "--retries", "0", cwd=folder, code=1, timeout=900)
    assert "FAILED multi_task/full/adapt_finetune/broken/seed3: nowhere/images/100k/train: no such folder" in printed
    assert "2 of 9 cells failed" in printed
    root = folder / "work_dirs/zoo_tiny"
    results = {str(path.parent.relative_to(root)): result for path, result in read_results(root).items()}
    assert len(results) == 9
    assert {result.status for name, result in results.items() if "broken" not in name} == {"finished"}
    adapted = results["multi_task/full/adapt_finetune/imagenet/seed3"]
    assert adapted.tasks == ("det", "drivable", "sem_seg") and adapted.weights is not None
    # The hash that is in the name of the packaged file.
    assert adapted.weights["sha256"].startswith("57934424") and adapted.weights["share"] == 1
    assert adapted.trainable["finetune"] == adapted.parameters > 2 * adapted.trainable["adapt"]
    own = results["single_task/full/det/own/seed3"]
    assert own.tasks == ("det",) and "det/bbox_mAP" in own.metrics and own.weights is not None
    assert own.weights["source"] == "work_dirs/zoo_tiny/pretrain/own/seed3/epoch_1.pth"
    assert results["multi_task/full/adapt_finetune/random/seed3"].weights is None
    # Equal but for where they start: other weights, other numbers.
    values = [results[f"multi_task/full/adapt_finetune/{name}/seed3"].metrics for name in ("random", "imagenet", "own")]
    assert len({each["drivable/official_mIoU"] for each in values}) == 3
    with (root / "report/results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 9
    assert "<table" in (root / "report/report.html").read_text()

    before = {path: path.stat().st_mtime_ns for path in root.rglob("epoch_*.pth")}
    (folder / "zoo.yaml").write_text(ZOO.replace("  - name: broken", "  - name: unbroken").replace("nowhere", "data"))
    printed = run(TOOL, "zoo.yaml", "--only", "unbroken", "det", cwd=folder, timeout=600)
    assert "0 of 1 cells are finished, 1 to run, 1 at a time" in printed and "0 of 1 cells failed" in printed
    assert before.items() <= {path: path.stat().st_mtime_ns for path in root.rglob("epoch_*.pth")}.items()

    assert "8 finished cells in logs" in run(TOOL, "zoo.yaml", "--collect", "logs", cwd=folder)
    assert not [path for path in (folder / "logs").rglob("*.*") if path.is_file() and str(folder) in path.read_text()]
    # The report of the copies alone, whatever has become of the runs.
    assert len(read_results(folder / "logs")) == 8


@pytest.mark.slow
def test_two_processes_a_run(folder: Path):
    run(
        *(TOOL, "zoo.yaml", "--only", "imagenet", "adapt_finetune"),
        *("--launcher", "pytorch", "--gpus", "2", "--retries", "0"),
        cwd=folder,
        timeout=600,
    )
    (result,) = read_results(folder / "work_dirs/zoo_tiny").values()
    assert (result.status, result.devices) == ("finished", 2) and result.device_hours == result.seconds / 1800


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--only", "nobody"], "error: --only nobody: zoo.yaml has broken, imagenet, own, random, adapt_finetune, det"),
        (["--gpus", "2"], "--gpus 2: without a launcher a run has one; add --launcher pytorch or slurm"),
        (["--jobs", "0"], "--jobs 0: give at least 1"),
    ],
)
def test_mistakes(flags: list[str], message: str, tmp_path: Path):
    for name in ("adapt", "det", "plain"):
        (tmp_path / f"{name}.py").touch()
    (tmp_path / "zoo.yaml").write_text(ZOO)
    assert last_line(run(TOOL, "zoo.yaml", *flags, cwd=tmp_path, code=2)).endswith(message)
    assert not (tmp_path / "work_dirs").exists()
