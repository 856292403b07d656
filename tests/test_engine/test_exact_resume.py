"""n steps are k steps, a kill, a resume and n - k steps, to the bit."""

from __future__ import annotations

import random
import re
import shutil
import time
from pathlib import Path

import pytest

from tests.command_line import last_line
from tests.test_engine.heterogeneous_run import STEPS, different, finish, kill_when, start, wait_for, write_run

LAST = f"iter_{STEPS}.pth"


def losses(printed: str) -> dict[str, str]:
    """Iteration to the logged losses; of iterations that were trained twice, the later ones."""
    lines = re.findall(r"Iter\(train\)\s+\[\s*(\d+)/\d+\].*?(loss: .*)", printed)
    return dict(lines)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, Path]:
    """Config and folder of a training without an interruption, with two workers."""
    folder = tmp_path_factory.mktemp("whole")
    config = write_run(folder)
    finish(config, folder / "run", "--cfg-options", "train_dataloader.num_workers=2")
    return config, folder / "run"


@pytest.mark.parametrize(("step", "workers"), [(5, 0), (7, 1)])
def test_one_process(whole, tmp_path, step, workers):
    """The first goes on from the checkpoint that is written again in a validation, because it is the best so far."""
    config, expected = whole
    flags = ("--cfg-options", f"train_dataloader.num_workers={workers}")
    process = start(config, tmp_path, *flags)
    best = tmp_path / f"best_cls_top1_iter_{step}.pth"
    assert kill_when(process, (tmp_path / f"iter_{step + (step == 5)}.pth").exists)
    if step == 5:
        assert best.exists()
        (tmp_path / "iter_6.pth").unlink()
    printed = finish(config, tmp_path, "--resume", *flags)
    assert f"resumed epoch: 0, iter: {step}" in printed
    assert "falls back" not in printed and "weights_only=False" not in printed
    assert different(expected / LAST, tmp_path / LAST) == []
    assert losses(printed) == losses((expected / "output.txt").read_text())
    assert len(losses(printed)) == STEPS
    assert sorted(path.name for path in tmp_path.glob("iter_*")) == sorted([f"iter_{STEPS - 1}.pth", LAST])
    if step == 5:
        # All is trained, but the last validation may have been interrupted.
        printed = finish(config, tmp_path, "--resume", *flags)
        assert "the last validation may not have: it runs again" in printed and printed.count("Iter(val)") >= 3


def test_two_processes_in_stages(tmp_path):
    """Mixed batches, accumulation over two of them, a frozen backbone first; killed in either stage."""
    config = write_run(
        tmp_path,
        train_dataloader=dict(
            batch_sampler=dict(mode="mixed", weights=None, batch_size=dict(in1k=2, coco=1, ade20k=1)),
        ),
        stages=[
            dict(name="adapt", freeze=["backbone"], length=6, param_scheduler=[]),
            dict(name="finetune", param_scheduler=[dict(type="LinearLR", start_factor=0.1, by_epoch=False, end=6)]),
        ],
        optim_wrapper=dict(accumulative_counts=2),
    )
    finish(config, tmp_path / "whole", processes=2)
    killed = tmp_path / "killed"
    for stage, step in (("adapt", 2), ("finetune", 4)):
        process = start(config, killed, "--resume", processes=2)
        assert kill_when(process, (killed / stage / f"iter_{step}.pth").exists)
    finish(config, killed, "--resume", processes=2)
    for stage in ("adapt", "finetune"):
        assert different(tmp_path / "whole" / stage / "iter_6.pth", killed / stage / "iter_6.pth") == []
    # Checkpoints are written where gradients do not wait for an update.
    assert sorted(path.name for path in (killed / "adapt").glob("iter_*")) == ["iter_4.pth", "iter_6.pth"]


def test_a_truncated_checkpoint_is_reported_and_passed_over(whole, tmp_path):
    config, expected = whole
    shutil.copytree(expected, tmp_path / "run")
    newest, before = tmp_path / "run" / LAST, tmp_path / "run" / f"iter_{STEPS - 1}.pth"
    content = newest.read_bytes()
    newest.write_bytes(content[: len(content) // 2])
    printed = finish(config, tmp_path / "run", "--resume")
    assert f"{newest}: the checkpoint is truncated ({len(content) // 2:,} bytes); passed over" in printed
    assert f"resumed epoch: 0, iter: {STEPS - 1}" in printed
    assert different(expected / LAST, newest) == []
    broken = bytearray(before.read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    before.write_bytes(broken)
    newest.unlink()
    assert start(config, tmp_path / "run", "--resume").wait() == 2
    printed = (tmp_path / "run" / "output.txt").read_text()
    assert f"{before}: the checkpoint is damaged" in printed
    assert "none of the 1 checkpoints is whole; copy one again, or train without --resume" in last_line(printed)


def test_changed_sources_and_samplers(whole, tmp_path):
    config, expected = whole
    shutil.copytree(expected, tmp_path / "run")
    images = config.parent / "data" / "imagenet" / "train" / "cat"
    extra = images / "extra.JPEG"
    shutil.copy(next(images.iterdir()), extra)
    try:
        process = start(config, tmp_path / "run", "--resume")
        assert process.wait() == 2
    finally:
        extra.unlink()
    message = last_line((tmp_path / "run" / "output.txt").read_text())
    assert message.startswith("error: source 'in1k' has 7 samples, and had 6 when the checkpoint was written")
    process = start(config, tmp_path / "run", "--resume", "--cfg-options", "train_dataloader.batch_sampler=None")
    assert process.wait() == 2
    message = last_line((tmp_path / "run" / "output.txt").read_text())
    assert "written with another batch_sampler (HeterogeneousBatchSampler)" in message


@pytest.mark.slow
def test_twenty_kills_lose_nothing(tmp_path):
    """Half of them around the writing of a checkpoint, the others at any moment."""
    generator = random.Random(0)
    # A wide head, so that writing takes a while.
    steps = 90
    config = write_run(
        tmp_path,
        train_cfg=dict(max_iters=steps),
        model=dict(tasks=dict(det=dict(roi_head=dict(bbox_head=dict(fc_out_channels=2048))))),
    )
    finish(config, tmp_path / "whole", "--cfg-options", "train_dataloader.num_workers=1")
    killed, saving = tmp_path / "killed", 0
    for number in range(20):
        process = start(config, killed, "--resume", "--cfg-options", f"train_dataloader.num_workers={number % 3}")
        newest = max((int(path.stem[5:]) for path in killed.glob("iter_*.pth")), default=0)
        ready = killed / f"iter_{newest + generator.randint(1, 3)}.pth"
        if number % 2:
            saved = ready.with_name(ready.name + ".tmp")
            assert kill_when(process, saved.exists)
            saving += saved.exists()
        else:
            # Anywhere: while it starts, loads, trains, validates.
            if number % 4 == 0:
                assert wait_for(process, ready.exists)
            end = time.monotonic() + generator.uniform(0, 2 if number % 4 == 0 else 20)
            kill_when(process, lambda end=end: time.monotonic() > end)
    printed = finish(config, killed, "--resume")
    assert saving >= 3
    assert different(tmp_path / "whole" / f"iter_{steps}.pth", killed / f"iter_{steps}.pth") == []
    assert printed.count("passed over") == 0
    assert not list(killed.glob("*.tmp"))
