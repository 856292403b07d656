"""Results of a benchmark as its runs leave them, with numbers that are easy to reckon with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mtadapt.zoo.results import CellResult

TASKS = ("det", "sem_seg", "drivable")
MAIN = {"det": "det/bbox_mAP", "sem_seg": "sem_seg/mIoU", "drivable": "drivable/official_mIoU"}
PROTOCOL = "CamVid 240x180, 6 epochs of AdamW 1e-3, batch 4, last validation on 101 images"


def weights(name: str, share: float = 1.0, **changes: Any) -> dict[str, Any]:
    """The report of a loading."""
    return (
        dict(
            source=f"{name}.pth",
            sha256=(name.encode().hex() * 64)[:64],
            format="torchvision names",
            backbone="EfficientNetLite0",
            matched=300,
            missing=0,
            unexpected=2,
            reshaped=0,
            share=share,
        )
        | changes
    )


def write_cell(root: Path, kind: str, checkpoint: str, paradigm: str, seed: int, **fields: Any) -> Path:
    """Write one run below ``root``, with its config and log; return its folder."""
    setting = "" if kind == "pretrain" else fields.pop("label_setting", "full")
    folder = root.joinpath(*[part for part in (kind, setting, paradigm, checkpoint, f"seed{seed}") if part])
    folder.mkdir(parents=True)
    (folder / "config.py").write_text("# the config\n")
    (folder / "output.txt").write_text("the log\n")
    values = dict(
        zoo="camvid",
        kind=kind,
        checkpoint=checkpoint,
        paradigm=paradigm,
        label_setting=setting,
        seed=seed,
        status="finished",
        protocol=PROTOCOL,
        reference="random",
        seconds=3600.0,
        parameters=4_680_000,
        trainable={"train": 4_680_000},
        tasks=TASKS if kind == "multi_task" else (paradigm,) if kind == "single_task" else (),
    )
    CellResult(**(values | fields)).write(folder)
    return folder


def metrics(det: float | None = None, sem_seg: float | None = None, drivable: float | None = None) -> dict[str, float]:
    """What the metrics report: AP as a fraction, with others beside the main ones."""
    found = {}
    if det is not None:
        found |= {"det/bbox_mAP": det / 100, "det/bbox_mAP_50": det / 40}
    if sem_seg is not None:
        found |= {"sem_seg/mIoU": sem_seg, "sem_seg/aAcc": 88.0}
    if drivable is not None:
        found |= {"drivable/official_mIoU": drivable, "drivable/strict_mIoU": drivable - 1}
    return found


#: Of the single-task runs of :func:`write_grid`, in percent.
ALONE = dict(det=20.0, sem_seg=40.0, drivable=90.0)


def write_grid(
    root: Path, checkpoints: Sequence[str] = ("random", "imagenet"), seeds: Sequence[int] = (0, 1, 2)
) -> None:
    """finetune: +10 %, -5 % and +10 % of the single-task results; adapt_finetune has 1, 2 and 3 points more of det."""
    for checkpoint in checkpoints:
        loaded = None if checkpoint == "random" else weights(checkpoint)
        for seed in seeds:
            for task, alone in ALONE.items():
                write_cell(
                    root, "single_task", checkpoint, task, seed, metrics=metrics(**{task: alone}), weights=loaded
                )
            for paradigm, more in (("finetune", 0), ("adapt_finetune", seed + 1)):
                found = metrics(det=22.0 + more, sem_seg=38.0, drivable=99.0)
                write_cell(root, "multi_task", checkpoint, paradigm, seed, metrics=found, weights=loaded)
