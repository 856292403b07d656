"""A small heterogeneous training for tests, started, killed and resumed through tools/train.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config

from tests import models
from tests.command_line import ROOT
from tests.models import BACKBONE, NECK, NORMALISE, as_task
from tests.test_datasets.sources import trio, write_trio

STEPS = 12


def write_run(folder: Path, **changes) -> Path:
    """Write the data and the config; return the config's path. Much in it draws random numbers: crops, RPN, dropout."""
    write_trio(folder / "data", size=(96, 72))
    sources = trio(folder / "data")
    sources["in1k"]["dataset"]["pipeline"][1]["scale"] = 64
    sources["ade20k"]["dataset"]["pipeline"][2]["crop_size"] = (64, 64)
    sem_seg = models.fpn_head(2)
    sem_seg.decode_head.dropout_ratio = 0.3
    det = models.faster_rcnn()
    det.roi_head.bbox_head.num_classes = 3
    config = Config(
        dict(
            default_scope="mtadapt",
            custom_imports=dict(imports=["mtadapt"], allow_failed_imports=False),
            env_cfg=dict(dist_cfg=dict(backend="gloo"), mp_cfg=dict(opencv_num_threads=0)),
            randomness=dict(seed=3),
            default_hooks=dict(
                checkpoint=dict(
                    type="ResumableCheckpointHook",
                    by_epoch=False,
                    interval=1,
                    max_keep_ckpts=2,
                    save_best="cls/top1",
                    rule="greater",
                ),
                logger=dict(type="LoggerHook", interval=1),
            ),
            custom_hooks=[dict(type="CheckpointMatchHook"), dict(type="AbsentTaskHook")],
            log_processor=dict(by_epoch=False, window_size=1),
            model=dict(
                type="MultiTaskModel",
                data_preprocessor=dict(type="MultiTaskDataPreprocessor", **NORMALISE),
                backbone=dict(BACKBONE, norm_eval=False),
                neck=NECK,
                tasks=dict(cls=as_task(models.classifier(2)), det=as_task(det), sem_seg=as_task(sem_seg)),
            ),
            train_dataloader=dict(
                num_workers=0,
                batch_size=1,
                sampler=dict(type="InfiniteSampler"),
                dataset=dict(type="HeterogeneousDataset", sources=sources),
                batch_sampler=dict(
                    type="HeterogeneousBatchSampler",
                    weights=dict(in1k=1, coco=1, ade20k=1),
                    batch_size=dict(in1k=4, coco=2, ade20k=2),
                ),
            ),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=STEPS, val_interval=5),
            # On the training images, with their random crops, so that a validation draws random numbers.
            val_dataloader=dict(
                batch_size=2,
                num_workers=0,
                sampler=dict(type="DefaultSampler", shuffle=False),
                dataset=dict(type="HeterogeneousDataset", sources=dict(in1k=sources["in1k"])),
            ),
            val_cfg=dict(),
            val_evaluator=dict(type="MultiTaskMetric", tasks=dict(cls=dict(type="mmpretrain.Accuracy", topk=(1,)))),
            optim_wrapper=dict(optimizer=dict(type="AdamW", lr=1e-3), clip_grad=dict(max_norm=1.0)),
            param_scheduler=[dict(type="CosineAnnealingLR", by_epoch=False, T_max=STEPS)],
        )
    )
    config.merge_from_dict(changes)
    path = folder / "run.py"
    config.dump(str(path))
    return path


def start(config: Path, work_dir: Path, *flags: str, processes: int = 1) -> subprocess.Popen:
    """Start the training in a process group of its own."""
    command = [sys.executable, str(ROOT / "tools/train.py"), str(config)]
    if processes > 1:
        command = [str(ROOT / "tools/dist_train.sh"), str(config), str(processes)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "PORT": str(_free_port())}
    work_dir.mkdir(parents=True, exist_ok=True)
    with (work_dir / "output.txt").open("a") as output:
        return subprocess.Popen(
            [*command, "--work-dir", str(work_dir), *flags],
            cwd=config.parent,
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _free_port() -> int:
    """Another one for each start, because workers of a killed run may still look for it at its port."""
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]


def finish(config: Path, work_dir: Path, *flags: str, processes: int = 1) -> str:
    """Train to the end; return all that was printed into the folder so far."""
    process = start(config, work_dir, *flags, processes=processes)
    code = process.wait(timeout=900)
    printed = (work_dir / "output.txt").read_text()
    assert code == 0, printed[-4000:]
    return printed


def wait_for(process: subprocess.Popen, condition: Callable[[], bool], timeout: float = 600) -> bool:
    """Wait until the condition holds or the process has ended; return whether it is still running."""
    end = time.monotonic() + timeout
    while process.poll() is None and not condition():
        assert time.monotonic() < end
        time.sleep(0.001)
    return process.poll() is None


def kill_when(process: subprocess.Popen, condition: Callable[[], bool]) -> bool:
    """Kill the process group as soon as the condition holds; return whether it was still running."""
    running = wait_for(process, condition)
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return running


def state(path: Path) -> dict:
    """All that the training depends on, of a checkpoint, flat."""
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    found: dict = {}

    def walk(prefix: str, value) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{prefix}/{key}", item)
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                walk(f"{prefix}/{number}", item)
        else:
            found[prefix] = value

    for part in ("state_dict", "optimizer", "param_schedulers", "training_state"):
        walk(part, checkpoint[part])
    return found


def different(one: Path, two: Path) -> list[str]:
    """Names of what differs between two checkpoints, to the bit."""
    first, second = state(one), state(two)
    assert len(first) > 500 and first.keys() == second.keys()
    return [
        name
        for name, value in first.items()
        if not (torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name])
    ]
