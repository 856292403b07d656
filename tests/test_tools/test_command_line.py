"""The commands that users type, on a few rendered scenes."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path

import pytest

from mtadapt.datasets.synthetic import write_bdd100k
from tests.command_line import ROOT, last_line, numbers, run

CONFIG = """
_base_ = "{root}/configs/mt_synthetic_baseline.py"
train_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(data_root="{data}"))
val_dataloader = dict(batch_size=2, num_workers=1, dataset=dict(data_root="{data}"))
test_dataloader = val_dataloader
model = dict(backbone=dict(pretrained=None))
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=2), visualization=dict(num_images=1))
custom_hooks = [
    dict(type="CheckpointMatchHook"),
    dict(type="TaskProgressHook", interval=2),
    dict(type="MetricTableHook"),
]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data in which only every other image has semantic labels, and a config that uses it."""
    folder = tmp_path_factory.mktemp("command_line")
    write_bdd100k(folder / "data", train=6, val=3, size=(160, 96), seed=1, sem_seg_fraction=0.5, workers=1)
    (folder / "config.py").write_text(CONFIG.format(root=ROOT, data=folder / "data"))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> str:
    """What ``tools/train.py`` printed."""
    return run(ROOT / "tools/train.py", "config.py", cwd=folder)


def test_train_logs_tasks_metrics_and_pictures(folder: Path, trained: str):
    work_dir = folder / "work_dirs/config"
    assert (work_dir / "epoch_1.pth").is_file()
    assert re.search(r"Tasks: det 4 samples, loss \d.*; sem_seg \d samples, .*; drivable 4 samples, loss", trained)
    assert "eta:" in trained and "Metrics of all tasks" in trained
    assert set(numbers(trained, "val")) >= {"det/bbox_mAP", "sem_seg/mIoU", "drivable/strict_mIoU"}
    (run_dir,) = [path for path in work_dir.iterdir() if path.is_dir()]
    assert re.search(f"1 example pictures in .*/work_dirs/config/{run_dir.name}/pictures", trained)
    assert len(list((run_dir / "pictures").glob("*.jpg"))) == 1
    assert list(run_dir.rglob("events.out.tfevents*"))
    scalars = [json.loads(line) for line in (run_dir / "vis_data/scalars.json").read_text().splitlines()]
    assert {"det.loss_cls", "sem_seg.decode.loss_ce", "drivable.decode.loss_ce"} <= scalars[0].keys()


def test_test_gives_the_numbers_of_the_validation(folder: Path, trained: str):
    printed = run(
        ROOT / "tools/test.py",
        "config.py",
        "work_dirs/config/epoch_1.pth",
        "--show-dir",
        "shown",
        "--out",
        "out.pkl",
        cwd=folder,
    )
    assert numbers(printed, "test") == numbers(trained, "val")
    assert len(list((folder / "shown").glob("*.jpg"))) == 1
    predictions = pickle.loads((folder / "out.pkl").read_bytes())
    assert len(predictions) == 3 and {"det", "sem_seg", "drivable"} <= predictions[0].keys()


def test_resume_goes_on(folder: Path, trained: str):
    printed = run(
        ROOT / "tools/train.py", "config.py", "--resume", "--cfg-options", "train_cfg.max_epochs=2", cwd=folder
    )
    assert "resumed epoch: 1" in printed
    assert "Epoch(train) [2]" in printed and "Epoch(train) [1]" not in printed
    assert (folder / "work_dirs/config/epoch_2.pth").is_file()


def test_two_processes(folder: Path):
    port = 29000 + os.getpid() % 2000
    printed = run(
        "env", f"PORT={port}", "bash", ROOT / "tools/dist_train.sh", "config.py", "2", "--work-dir", "dist", cwd=folder
    )
    assert "Distributed training: True" in printed and "GPU number: 2" in printed
    assert (folder / "dist/epoch_1.pth").is_file()
    printed_test = run(
        "env", f"PORT={port}", "bash", ROOT / "tools/dist_test.sh", "config.py", "dist/epoch_1.pth", "2", cwd=folder
    )
    assert numbers(printed_test, "test") == numbers(printed, "val")


def test_slurm_starts_one_torchrun_a_node(folder: Path, tmp_path: Path):
    """Slurm's own commands are stood in for; what they start is real."""
    fakes = {
        "srun": 'while [[ $1 == --* ]]; do echo "srun $1"; shift; done; SLURM_NNODES=1 SLURM_NODEID=0 exec "$@"',
        "scontrol": "echo 127.0.0.1",
    }
    for name, body in fakes.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    settings = ["GPUS=1", f"PATH={tmp_path}:{os.environ['PATH']}", f"PORT={31000 + os.getpid() % 2000}"]
    settings.append("SLURM_JOB_NODELIST=node[1-1]")
    command = ["env", *settings, "bash", ROOT / "tools/slurm_train.sh", "part", "job", "config.py", "slurm"]
    printed = run(*command, "--cfg-options", "val_cfg=None", "val_dataloader=None", "val_evaluator=None", cwd=folder)
    for option in ("--partition=part", "--job-name=job", "--nodes=1", "--ntasks-per-node=1", "--gres=gpu:1"):
        assert f"srun {option}" in printed
    assert "Distributed training: True" in printed and (folder / "slurm/epoch_1.pth").is_file()
    wrong = [
        "env",
        "GPUS=12",
        "GPUS_PER_NODE=8",
        "bash",
        ROOT / "tools/slurm_train.sh",
        "part",
        "job",
        "config.py",
        "w",
    ]
    printed = run(*wrong, cwd=folder, code=2)
    assert last_line(printed) == "error: GPUS=12 is not a multiple of GPUS_PER_NODE=8"


def test_browse_dataset(folder: Path):
    printed = run(ROOT / "tools/analysis_tools/browse_dataset.py", "config.py", "--num=2", "--out-dir=b", cwd=folder)
    assert "2 pictures in b" in printed and len(list((folder / "b").glob("*.jpg"))) == 2


def test_print_config(folder: Path):
    printed = run(ROOT / "tools/print_config.py", "config.py", "--cfg-options", "train_cfg.max_epochs=7", cwd=folder)
    assert "max_epochs=7" in printed and "type='FasterRCNN'" in printed


def _truncate(folder: Path) -> None:
    path = sorted((folder / "data/images/100k/train").iterdir())[0]
    path.write_bytes(path.read_bytes()[:-300])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.py"], "error: nothing.py: no such config file"),
        (
            ["config.py", "--cfg-options", "train_dataloader.dataset.data_root=nowhere"],
            r"error: nowhere/images/100k/train: no such folder, needed by det and drivable; see docs/",
        ),
        (
            ["config.py", "--cfg-options", "train_dataloader.dataset.label_setting=half"],
            "error: unknown label_setting 'half'; known: full, disjoint_normal, disjoint_balance",
        ),
        (["config.py", "--auto-scale-lr"], r"error: config.py: --auto-scale-lr needs auto_scale_lr="),
        (["config.py", "--resume", "gone.pth"], r"error: gone.pth: no such checkpoint"),
        (["config.py", "--cfg-options", "train_cfg"], r".*--cfg-options train_cfg: write key=value"),
        (
            ["config.py", "--cfg-options", "train_dataloader.dataset.task=det"],
            r"error: BDD100KDataset: unknown settings \['task'\]",
        ),
        (
            ["config.py", "--cfg-options", "model.loss_weight.det=2"],
            r"error: .*config.py: .*unexpected keyword argument 'loss_weight'",
        ),
        (
            ["config.py", "--cfg-options", "model.backbone.type=NoNet"],
            r"error: .*config.py: KeyError: NoNet is not in the",
        ),
    ],
)
def test_train_errors_are_one_line(folder: Path, arguments: list[str], message: str):
    printed = run(ROOT / "tools/train.py", *arguments, "--work-dir", "errors", cwd=folder, code=2)
    assert re.match(message, last_line(printed)), last_line(printed)
    assert "Traceback" not in printed


def test_error_in_a_worker_is_one_line(tmp_path: Path):
    write_bdd100k(tmp_path / "data", train=2, val=1, size=(160, 96), seed=1, workers=1)
    (tmp_path / "config.py").write_text(CONFIG.format(root=ROOT, data=tmp_path / "data"))
    _truncate(tmp_path)
    printed = run(ROOT / "tools/train.py", "config.py", cwd=tmp_path, code=2)
    assert re.match(r"error: .*/images/100k/train/\S+.jpg: truncated or not an image", last_line(printed))
    assert "Traceback" not in printed
    printed = run(
        ROOT / "tools/train.py", "config.py", "--cfg-options", "train_dataloader.dataset.on_error=skip", cwd=tmp_path
    )
    assert re.search(r"1 samples could not be used and were replaced \(on_error='skip'\)", printed)


def test_checkpoint_of_another_model(folder: Path, trained: str):
    """Weights that do not fit are no reason to print a table."""
    import torch

    weights = torch.load(folder / "work_dirs/config/epoch_1.pth", weights_only=False)["state_dict"]
    kept = {name: value for name, value in weights.items() if not name.startswith("tasks.sem_seg")}
    torch.save(dict(state_dict=kept), folder / "half.pth")
    printed = run(ROOT / "tools/test.py", "config.py", "half.pth", cwd=folder, code=2)
    assert re.match(
        r"error: half.pth: \d+ of the model's \d+ entries .* first without a match: tasks.sem_seg", last_line(printed)
    )
    whole = (folder / "work_dirs/config/epoch_1.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    printed = run(ROOT / "tools/test.py", "config.py", "cut.pth", cwd=folder, code=2)
    assert last_line(printed).startswith("error: cut.pth: the checkpoint is truncated")


def test_missing_checkpoint(folder: Path):
    printed = run(ROOT / "tools/test.py", "config.py", "nothing.pth", cwd=folder, code=2)
    assert last_line(printed).startswith("error: nothing.pth: no such checkpoint; train first")
