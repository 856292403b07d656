"""configs/hvp_synthetic.py through tools/train.py: logs, metrics, pictures, exact resume, two processes, bad input."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from mtadapt.datasets.synthetic import write_bdd100k
from tests.command_line import ROOT, last_line, run
from tests.test_engine.heterogeneous_run import different, finish, kill_when, start

STEPS = 6
CONFIG = """
_base_ = "{root}/configs/hvp_synthetic.py"
model = dict(
    backbone=dict(arch=dict(embed_dims=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]), drop_path_rate=0.3),
    multi_label=dict(in_channels=128, embed_dims=32),
    masked_image=dict(in_channels=128),
    # The batch does not divide the queue.
    contrastive=dict(projector=dict(in_channels=128, hid_channels=16, out_channels=8), queue_len=10),
)
data_root = "{data}"
train_dataloader = dict(
    dataset=dict(sources=dict(synthetic=dict(dataset=dict(reader=dict(data_root=data_root))))),
    batch_sampler=dict(batch_size=4),
)
val_dataloader = dict(
    batch_size=3, dataset=dict(sources=dict(synthetic=dict(dataset=dict(reader=dict(data_root=data_root)))))
)
test_dataloader = val_dataloader
train_cfg = dict(max_iters={steps}, val_interval=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=1, max_keep_ckpts=2))
log_processor = dict(window_size=1)
env_cfg = dict(dist_cfg=dict(backend="gloo"))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Path]:
    """Config and folder of a training without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    write_bdd100k(folder / "data", train=7, val=6, size=(224, 128), seed=1, workers=1)
    config = folder / "run.py"
    config.write_text(CONFIG.format(root=ROOT, data=folder / "data", steps=STEPS))
    finish(config, folder / "run")
    return config, folder / "run"


def test_logs_metrics_and_pictures(whole: tuple[Path, Path]):
    _, folder = whole
    printed = (folder / "output.txt").read_text()
    lines = re.findall(r"Iter\(train\) +\[\d/6\].*", printed)
    assert len(lines) == STEPS
    for name in ("mlc.loss_style", "mlc.loss_objects", "mlc.loss_relations", "mim.loss_pixel", "con.loss_image"):
        values = [float(re.search(rf"{re.escape(name)}: (\S+)", line)[1]) for line in lines]
        assert len(set(values)) > 1, name
    logged = {
        name: float(value)
        for name, value in re.findall(r"(\S+): (\S+)", lines[-1].replace("  ", " "))[-10:]
        if re.fullmatch(r"[\d.]+", value)
    }
    total = sum(value for name, value in logged.items() if ".loss" in name)
    assert logged["loss"] == pytest.approx(total, abs=2e-3)
    assert len(re.findall(r"mlc/mAP: [\d.]+ .*probe/knn_weather: [\d.]+", printed)) == 2
    assert [path.name for path in sorted(folder.glob("reconstructions/*"))] == ["iter_3.png", "iter_6.png"]


def test_resume_is_exact(whole: tuple[Path, Path], tmp_path: Path):
    """Weights, momentum encoder, queue and its position, optimizer and random states, after a kill."""
    config, expected = whole
    process = start(config, tmp_path)
    assert kill_when(process, (tmp_path / "iter_4.pth").exists)
    printed = finish(config, tmp_path, "--resume", "--cfg-options", "train_dataloader.num_workers=2")
    assert "resumed epoch: 0, iter: 4" in printed
    last = f"iter_{STEPS}.pth"
    assert different(expected / last, tmp_path / last) == []
    state = torch.load(tmp_path / last, weights_only=False)["state_dict"]
    assert state["contrastive.queue.position"].item() == 4 * STEPS % 10
    assert any(name.startswith("contrastive.key_encoder.backbone.") for name in state)


@pytest.mark.slow
def test_two_processes(whole: tuple[Path, Path], tmp_path: Path):
    config, _ = whole
    printed = finish(config, tmp_path, processes=2)
    assert f"[{STEPS}/{STEPS}]" in printed and "mlc/mAP" in printed
    state = torch.load(tmp_path / f"iter_{STEPS}.pth", weights_only=False)["state_dict"]
    assert state["contrastive.queue.position"].item() == 8 * STEPS % 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["train_dataloader.dataset.sources.synthetic.dataset.reader.data_root=nothing"],
            "synthetic_bdd100k.py data/s",
        ),
        (["train_dataloader.dataset.sources.synthetic.dataset.pipeline.2.mask_ratio=1.5"], "mask_ratio=1.5"),
        (["model.backbone.type=mmpretrain.SwinTransform"], "SwinTransform"),
    ],
)
def test_bad_input(whole: tuple[Path, Path], tmp_path: Path, options: list[str], message: str):
    config, _ = whole
    printed = run(
        ROOT / "tools/train.py", config, "--work-dir", tmp_path, "--cfg-options", *options, cwd=tmp_path, code=2
    )
    assert last_line(printed).startswith("error: ") and re.search(message, last_line(printed)), last_line(printed)


@pytest.mark.parametrize("start", ["--resume", "load_from"])
def test_checkpoint_of_another_backbone(whole: tuple[Path, Path], tmp_path: Path, start: str):
    config, folder = whole
    options = ["model.backbone.arch.embed_dims=32"]
    options += [f"load_from={folder}/iter_{STEPS}.pth"] if start == "load_from" else []
    printed = run(
        ROOT / "tools/train.py",
        config,
        *(["--resume", folder / f"iter_{STEPS}.pth"] if start == "--resume" else []),
        "--work-dir",
        tmp_path,
        "--cfg-options",
        *options,
        "model.multi_label.in_channels=256",
        "model.masked_image.in_channels=256",
        "model.contrastive.projector.in_channels=256",
        cwd=tmp_path,
        code=2,
    )
    assert f"iter_{STEPS}.pth" in last_line(printed) and "first without a match: backbone." in last_line(printed)
