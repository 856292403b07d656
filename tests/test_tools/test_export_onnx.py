"""tools/export_onnx.py as a user runs it, and the commands of docs/export.md."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from mmengine.registry import DefaultScope

from mtadapt.engine.config import load_config
from mtadapt.registry import MODELS
from tests.command_line import ROOT, last_line, run

TOOL = ROOT / "tools/export_onnx.py"
CONFIG = ROOT / "configs/mt_synthetic_lv.py"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights of the demo's model, with the classes of its dataset."""
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("mtadapt"):
        model = MODELS.build(load_config(str(CONFIG)).model)
        model.init_weights()
    classes = dict(det=tuple(f"thing {n}" for n in range(10)), sem_seg=tuple(f"stuff {n}" for n in range(19)))
    meta = dict(dataset_meta=dict(tasks={name: dict(classes=names) for name, names in classes.items()}))
    path = tmp_path_factory.mktemp("weights") / "epoch_1.pth"
    torch.save(dict(state_dict=model.state_dict(), meta=meta), path)
    return path


def _image(path: Path, width: int, height: int) -> Path:
    noise = np.random.default_rng(width).normal(size=(height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    assert cv2.imwrite(str(path), (128 + smooth / smooth.std() * 60).clip(0, 255).astype(np.uint8))
    return path


@pytest.mark.slow
def test_the_demo_model_and_the_snippets_of_the_page(tmp_path: Path, checkpoint: Path):
    """Exported, compared on three images of several sizes, and run with what the page prints."""
    sizes = [(320, 192), (240, 180), (333, 201)]
    pictures = [_image(tmp_path / f"{width}x{height}.png", width, height) for width, height in sizes]
    printed = run(TOOL, CONFIG, checkpoint, "--out", "model.onnx", "--verify", *pictures, cwd=tmp_path, timeout=900)
    rows = re.findall(r"\| (\S+\.png) +\| (\w+) +\| .* \| +(\S+) \|", printed)
    assert [row[:2] for row in rows] == [
        (picture.name, task) for picture in pictures for task in ("det", "sem_seg", "drivable")
    ]
    assert all(float(row[2]) < 1e-3 for row in rows)
    assert "outputs: det_boxes, det_scores, det_labels, sem_seg_classes, drivable_classes" in printed
    props = {prop.key: json.loads(prop.value) for prop in onnx.load(str(tmp_path / "model.onnx")).metadata_props}
    assert props["classes"]["det"][3] == "thing 3" and props["config"] == "mt_synthetic_lv.py"
    options = ("--format", "torch", "--tasks", "det", "drivable")
    printed = run(TOOL, CONFIG, checkpoint, "--out", "model.pt2", *options, cwd=tmp_path, timeout=900)
    assert "outputs: det_boxes, det_scores, det_labels, drivable_classes" in printed
    pictures[1].rename(tmp_path / "image.jpg")
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs/export.md").read_text(), re.S)
    assert len(snippets) == 2
    for snippet in snippets:
        done = subprocess.run([sys.executable, "-I", "-c", snippet], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert cv2.imread(str(tmp_path / "sem_seg.png"), cv2.IMREAD_UNCHANGED).shape == (180, 240)
    assert "'drivable_classes': (1, 180, 240)" in done.stdout


def test_what_is_refused_before_anything_is_built(tmp_path: Path, checkpoint: Path):
    (tmp_path / "there.onnx").write_text("mine")
    (tmp_path / "broken.jpg").write_text("no image")
    for options, message in (
        (("--out", "there.onnx"), r"error: --out there.onnx: exists; name another file, or add --overwrite"),
        (("--out", "model.pth"), r"error: --out model.pth: a file of --format onnx ends in .onnx"),
        (("--out", "model.onnx", "--format", "torch"), r"--out model.onnx: a file of --format torch ends in .pt2"),
        (("--out", "m.onnx", "--verify", "none.jpg"), r"--verify none.jpg: no such file"),
        (("--out", "m.onnx", "--verify", "broken.jpg"), r"--verify broken.jpg: no image that can be read"),
    ):
        printed = run(TOOL, CONFIG, checkpoint, *options, cwd=tmp_path, code=2)
        assert re.search(message, last_line(printed)), printed
    assert (tmp_path / "there.onnx").read_text() == "mine"


def test_what_does_not_fit(tmp_path: Path, checkpoint: Path):
    """A checkpoint of another model, a missing one, a task that is not there and a model of another kind."""
    baseline = ROOT / "configs/mt_synthetic_baseline.py"
    (tmp_path / "empty").mkdir()
    for options, message in (
        ((baseline, checkpoint), r"error: .*epoch_1.pth: the checkpoint is of another model"),
        ((CONFIG, "none.pth"), r"error: none.pth: no such file"),
        ((CONFIG, "empty"), r"error: empty: a folder without checkpoints"),
        # A folder stands for its newest checkpoint.
        ((CONFIG, checkpoint.parent, "--tasks", "lanes"), r"error: --tasks lanes: no task of the model; it has det"),
        ((ROOT / "configs/hvp_synthetic.py", checkpoint), r"its model is no MultiTaskModel"),
    ):
        printed = run(TOOL, *options, "--out", "model.onnx", cwd=tmp_path, code=2)
        assert re.search(message, last_line(printed)), printed
    assert not (tmp_path / "model.onnx").exists()
