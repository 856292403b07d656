"""Write a dataset of painted scenes in the layout of BDD100K, on all cores."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2

from mtadapt.datasets.bdd100k_writer import BDD100KWriter, Sample
from mtadapt.datasets.synthetic.render import check_size, render_scene
from mtadapt.errors import MTAdaptError

STAMP = "synthetic.json"
VERSION = 1  # raise it when the same options no longer give the same bytes


@dataclass(frozen=True)
class Options:
    """Everything that decides the bytes of a dataset."""

    train: int
    val: int
    width: int
    height: int
    seed: int
    sem_seg_fraction: float

    def check(self) -> None:
        """Raise MTAdaptError for values out of range."""
        for name, count in (("train", self.train), ("val", self.val)):
            if not 0 <= count <= 1_000_000:
                raise MTAdaptError(f"{name} is {count}, it must be a number of images from 0 to 1000000")
        if self.train + self.val == 0:
            raise MTAdaptError("train and val are both 0, ask for at least one image")
        if self.seed < 0:
            raise MTAdaptError(f"seed is {self.seed}, it must be 0 or more")
        if not 0.0 <= self.sem_seg_fraction <= 1.0:
            raise MTAdaptError(f"sem_seg_fraction is {self.sem_seg_fraction}, it must lie between 0 and 1")
        check_size((self.width, self.height))


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
    if workers is not None and workers < 1:
        raise MTAdaptError(f"workers is {workers}, it must be 1 or more")
    root = Path(out)
    if _is_done(root, options, overwrite):
        return False
    _write_stamp(root, options, complete=False)
    writer = BDD100KWriter(root)
    for split, count in (("train", train), ("val", val)):
        writer.make_folders(split)
        jobs = [(root, split, index, options) for index in range(count)]
        writer.write_detection(split, list(_run(jobs, workers)))
    _write_stamp(root, options, complete=True)
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


def _run(jobs: list[tuple[Path, str, int, Options]], workers: int | None) -> Iterator[dict[str, Any]]:
    """Frames of all jobs, in order."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = min(workers or cores, len(jobs))
    if count <= 1:
        yield from map(_write_one, jobs)
        return
    # Forked workers start at once; elsewhere each one imports the package anew. OpenCV's threads must end before the
    # fork: a child that inherits a pool without its threads waits for them forever.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        with context.Pool(count) as pool:
            yield from pool.imap(_write_one, jobs, chunksize=max(1, min(16, len(jobs) // (4 * count))))
    finally:
        cv2.setNumThreads(threads)


def _is_done(root: Path, options: Options, overwrite: bool) -> bool:
    """Whether ``root`` holds this very dataset; prepare it for writing if not.

    Raises:
        MTAdaptError: It holds something that must not be mixed with the new dataset.
    """
    if root.exists() and not root.is_dir():
        raise MTAdaptError(f"{root} is a file, name a folder")
    if not root.exists() or not any(root.iterdir()):
        root.mkdir(parents=True, exist_ok=True)
        return False
    stamp = root / STAMP
    if not stamp.is_file():
        raise MTAdaptError(f"{root} is not empty and has no {STAMP}, name an empty folder")
    try:
        found = json.loads(stamp.read_text(encoding="utf-8"))
        old, complete = {"version": found["version"], **found["options"]}, found["complete"]
    except (ValueError, KeyError, TypeError) as error:
        raise MTAdaptError(f"{stamp} cannot be read ({type(error).__name__}), name an empty folder") from error
    new = {"version": VERSION, **asdict(options)}
    if old == new:
        return bool(complete) and _is_whole(root, options)
    if not overwrite:
        changed = ", ".join(f"{key} {old.get(key)} instead of {new[key]}" for key in new if old.get(key) != new[key])
        raise MTAdaptError(f"{root} was written with {changed}: add --overwrite to replace it, or name another folder")
    for folder in ("images", "labels"):
        shutil.rmtree(root / folder, ignore_errors=True)
    return False


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


def _write_stamp(root: Path, options: Options, complete: bool) -> None:
    content = {"version": VERSION, "complete": complete, "options": asdict(options)}
    (root / STAMP).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
