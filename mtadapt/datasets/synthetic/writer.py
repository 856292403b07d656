"""Write a dataset of painted scenes in the layout of BDD100K, on all cores."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mtadapt.datasets.bdd100k_writer import BDD100KWriter, Sample
from mtadapt.datasets.synthetic.folder import DatasetFolder, SceneOptions
from mtadapt.datasets.synthetic.render import render_scene
from mtadapt.datasets.synthetic.workers import check_workers, mapper
from mtadapt.errors import MTAdaptError

STAMP = "synthetic.json"
VERSION = 1  # raise it when the same options no longer give the same bytes


@dataclass(frozen=True)
class Options(SceneOptions):
    """Everything that decides the bytes of a dataset."""

    sem_seg_fraction: float

    def check(self) -> None:
        """Raise MTAdaptError for values out of range."""
        super().check()
        if not 0.0 <= self.sem_seg_fraction <= 1.0:
            raise MTAdaptError(f"sem_seg_fraction is {self.sem_seg_fraction}, it must lie between 0 and 1")


def write_bdd100k(
    out: str | Path,
    train: int,
    val: int,
    size: tuple[int, int] = (640, 360),
    seed: int = 0,
    *,
    sem_seg_fraction: float = 1.0,
    workers: int | None = None,
    overwrite: bool = False,
) -> bool:
    """Write a dataset; do nothing if the folder already holds the same one.

    An image does not depend on how many others there are, nor on the number of workers.

    Args:
        out: Folder of the dataset.
        train: Number of training images.
        val: Number of validation images.
        size: Width and height in pixels.
        seed: Seed of the scenes.
        sem_seg_fraction: Share of the images that are in the 10k set too, with a semantic map.
        workers: Processes, None for one a core.
        overwrite: Replace a synthetic dataset that was written with other options.

    Returns:
        Whether anything was written.

    Raises:
        MTAdaptError: An option is out of range, or the folder holds something else.
    """
    options = Options(train, val, *size, seed, sem_seg_fraction)
    options.check()
    check_workers(workers)
    root = Path(out)
    folder = DatasetFolder(root, STAMP, VERSION, options, ("images", "labels"))
    if folder.is_done(overwrite, lambda: _is_whole(root, options)):
        return False
    folder.write_stamp(complete=False)
    writer = BDD100KWriter(root)
    with mapper(workers) as parallel_map:
        for split, count in (("train", train), ("val", val)):
            writer.make_folders(split)
            jobs = [(root, split, index, options) for index in range(count)]
            writer.write_detection(split, list(parallel_map(_write_one, jobs)))
    folder.write_stamp(complete=True)
    return True


def stem_of(seed: int, split: str, index: int) -> str:
    """File name of a scene, in the style of BDD100K's."""
    digest = hashlib.sha256(f"{seed}/{split}/{index}".encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:16]}"


def has_sem_seg(index: int, fraction: float) -> bool:
    """Whether scene ``index`` is in the 10k set; of the first N scenes, ``N * fraction`` (rounded down) are."""
    return math.floor((index + 1) * fraction + 1e-9) > math.floor(index * fraction + 1e-9)


def _write_one(job: tuple[Path, str, int, Options]) -> dict[str, Any]:
    root, split, index, options = job
    scene = render_scene(options.seed, index, (options.width, options.height), split)
    sample = Sample(
        stem=stem_of(options.seed, split, index),
        image=scene.image,
        drivable=scene.drivable,
        sem_seg=scene.sem_seg if has_sem_seg(index, options.sem_seg_fraction) else None,
        boxes=scene.boxes,
        attributes=scene.attributes,
    )
    return BDD100KWriter(root).add(split, sample)


def _is_whole(root: Path, options: Options) -> bool:
    """Whether no file has been removed since."""
    for split, count in (("train", options.train), ("val", options.val)):
        with_maps = math.floor(count * options.sem_seg_fraction + 1e-9)
        folders = {"images/100k": count, "labels/drivable/masks": count}
        folders |= {"images/10k": with_maps, "labels/sem_seg/masks": with_maps}
        for folder, expected in folders.items():
            path = root / folder / split
            if not path.is_dir() or sum(1 for _ in os.scandir(path)) != expected:
                return False
        if not (root / f"labels/det_20/det_{split}.json").is_file():
            return False
    return True
