"""The benchmark of pre-training at a tiny size: what a step does, and the numbers that are written."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mtadapt.errors import MTAdaptError

TOOLS = Path(__file__).parents[2] / "tools/analysis_tools"
BRANCHES = ("multi_label", "masked_image", "contrastive")
CONFIG = """
model = dict(
    type="HeuristicPretrainer",
    data_preprocessor=dict(
        type="PretrainDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        type="mmpretrain.SwinTransformer",
        arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]),
        img_size=64,
        stage_cfgs=dict(block_cfgs=dict(window_size=2)),
    ),
    multi_label=dict(type="LinearMultiLabelHead", in_channels=64, labels=dict(objects=["car", "bus", "truck"])),
    masked_image=dict(in_channels=64, encoder_stride=32),
    contrastive=dict(
        projector=dict(type="mmpretrain.MoCoV2Neck", in_channels=64, hid_channels=16, out_channels=8), queue_len=10
    ),
    loss_weights=dict(mlc=0.1, con=0.2),
)
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=0.01), clip_grad=dict(max_norm=5.0))
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(TOOLS))
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "set_num_threads", lambda _: threads)
    path = tmp_path / "config.py"
    path.write_text(CONFIG)
    return path


def test_ratio_and_passes(config: Path, tmp_path: Path):
    benchmark = importlib.import_module("benchmark")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        benchmark.main(["pretraining", "--config", str(config), "--batch-size", "2", "--repeats", "3",
                        "--json", str(tmp_path / "out.json")])  # fmt: skip
    lines = [line for line in printed.getvalue().splitlines() if line.startswith("backbone passes")]
    assert [line.removeprefix("backbone passes in a step, ") for line in lines] == [
        "multi_label: 1 unmasked, 0 masked, 0 of the momentum encoder",
        "masked_image: 0 unmasked, 1 masked, 0 of the momentum encoder",
        "contrastive: 1 unmasked, 0 masked, 1 of the momentum encoder",
        "all: 1 unmasked, 1 masked, 1 of the momentum encoder",
    ]
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["passes"] == dict(unmasked=1, masked=1, momentum=1) and result["aim"] == 1.05
    times = result["milliseconds"]
    assert set(times) == {"all", *BRANCHES, "backbone", "update"} and {len(each) for each in times.values()} == {3}
    parts = [sum(times[branch][i] for branch in BRANCHES) for i in range(3)]
    assert result["ratio"] == pytest.approx(statistics.median(times["all"][i] / parts[i] for i in range(3)))
    spared = [times["backbone"][i] + 2 * times["update"][i] for i in range(3)]
    assert result["floor"] == pytest.approx(statistics.median(1 - spared[i] / parts[i] for i in range(3)))
    assert f"median of the rounds' ratios {result['ratio']:.3f}, aim at most 1.05" in printed.getvalue()


def test_mixed_precision_needs_a_gpu(config: Path):
    benchmark = importlib.import_module("benchmark")
    with pytest.raises(MTAdaptError, match="--amp needs --device cuda"):
        benchmark.main(["pretraining", "--config", str(config), "--amp"])


@pytest.mark.parametrize("branches", [BRANCHES, *[(branch,) for branch in BRANCHES]])
def test_a_step_does_all_that_training_does(config: Path, branches: tuple[str, ...]):
    pretraining: Any = importlib.import_module("benchmarks.pretraining")
    step_of: Callable[..., Any] = pretraining._step
    settings = argparse.Namespace(device="cpu", amp=False, batch_size=4)
    model, step = step_of(Config.fromfile(config), settings, branches)
    assert [name for name in BRANCHES if getattr(model, name) is not None] == [*branches]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    losses = step()
    step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any(name.startswith("backbone.patch_embed") for name in changed)
    for branch, own in zip(BRANCHES, ("multi_label.fc", "masked_image.decoder", "contrastive.projector"), strict=True):
        assert any(name.startswith(own) for name in changed) == (branch in branches)
    assert {name.partition(".")[0] for name in losses} - {"loss"} == {
        dict(multi_label="mlc", masked_image="mim", contrastive="con")[branch] for branch in branches
    }
    if "contrastive" in branches:
        assert any(name.startswith("contrastive.key_encoder.backbone") for name in changed)
        assert model.contrastive.queue.position.item() == 8 and "contrastive.queue.keys" in changed
