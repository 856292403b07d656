"""Write three datasets of painted scenes, one a task, in the layouts of ImageNet, COCO and ADE20K."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from mtadapt.datasets.bdd100k_writer import DET_CATEGORIES, Box, jpeg_bytes, png_bytes
from mtadapt.datasets.synthetic.folder import DatasetFolder, SceneOptions
from mtadapt.datasets.synthetic.kinds import IGNORE
from mtadapt.datasets.synthetic.render import Scene, render_scene
from mtadapt.datasets.synthetic.workers import Mapper, check_workers, mapper
from mtadapt.errors import MTAdaptError

STAMP = "synthetic_heterogeneous.json"
VERSION = 1  # raise it when the same options no longer give the same bytes
#: Class folders of the crops, in the order of the labels. Ours: the categories that enough scenes show large.
CROP_CLASSES = ("bicycle", "bus", "car", "motorcycle", "pedestrian", "traffic_light", "traffic_sign", "truck")
# Ours: objects are cropped from scenes of this size, because small scenes show few large ones.
CROP_SCENE = (960, 544)
#: Ours: longest side in pixels of an object that is cropped, side of the crop over it, and greatest side of the file.
CROP_FROM, CROP_CONTEXT, CROP_MAX = 24, 1.3, 128
ROUND = 16  # scenes that are searched for crops at a time

Job = tuple[Path, str, int, SceneOptions]


def write_heterogeneous(
    out: str | Path,
    train: int,
    val: int,
    size: tuple[int, int] = (320, 192),
    seed: int = 0,
    *,
    workers: int | None = None,
    overwrite: bool = False,
) -> bool:
    """Write three single-task datasets of scenes that no other of them shows; do nothing if they are there already.

    - ``imagenet/{train,val}/<class>/*.JPEG``: crops of objects with some context, equally many of each class.
    - ``coco/{train,val}2017/*.jpg`` and ``coco/annotations/instances_{train,val}2017.json``: boxes and masks of the ten
      detection classes of BDD100K.
    - ``ade20k/{images,annotations}/{training,validation}``: maps of the 19 Cityscapes classes from 1, 0 = ignore.

    The number of workers does not change a byte.

    Args:
        out: Folder of the three datasets.
        train: Number of training images of each.
        val: Number of validation images of each.
        size: Width and height in pixels of the images for detection and segmentation.
        seed: Seed of the scenes.
        workers: Processes, None for one a core.
        overwrite: Replace datasets that were written with other options.

    Returns:
        Whether anything was written.

    Raises:
        MTAdaptError: An option is out of range, or the folder holds something else.
    """
    options = SceneOptions(train, val, *size, seed)
    options.check()
    for name, count in (("train", train), ("val", val)):
        if count < len(CROP_CLASSES):
            raise MTAdaptError(f"{name} is {count}, it must be {len(CROP_CLASSES)} or more: one image of each class")
    check_workers(workers)
    root = Path(out)
    folder = DatasetFolder(root, STAMP, VERSION, options, ("imagenet", "coco", "ade20k"))
    if folder.is_done(overwrite, lambda: _is_whole(root, options)):
        return False
    folder.write_stamp(complete=False)
    with mapper(workers) as parallel_map:
        for split, count in (("train", train), ("val", val)):
            _write_imagenet(root, split, count, options, parallel_map)
            _write_coco(root, split, count, options, parallel_map)
            _write_ade20k(root, split, count, options, parallel_map)
    folder.write_stamp(complete=True)
    return True


def crop_counts(count: int) -> dict[str, int]:
    """How many of ``count`` crops show each class: equally many, the first classes one more for a rest."""
    each, rest = divmod(count, len(CROP_CLASSES))
    return {name: each + (number < rest) for number, name in enumerate(CROP_CLASSES)}


def crop_box(box: Box, size: tuple[int, int]) -> tuple[int, int, int]:
    """Left, top and side of the square around an object that lies inside an image of ``size`` (width, height)."""
    side = round(CROP_CONTEXT * max(box.x2 - box.x1 + 1, box.y2 - box.y1 + 1))
    side = min(side, *size)
    left, top = (round((low + high + 1 - side) / 2) for low, high in ((box.x1, box.x2), (box.y1, box.y2)))
    return min(max(left, 0), size[0] - side), min(max(top, 0), size[1] - side), side


def coco_annotations(scene: Scene) -> list[dict[str, Any]]:
    """COCO's entries for the objects of a scene, without the numbers that depend on other scenes."""
    entries = []
    for box in scene.boxes:
        mask = np.asfortranarray(scene.instances == box.instance, dtype=np.uint8)
        code = coco_mask.encode(mask)
        entries.append(
            dict(
                category_id=DET_CATEGORIES.index(box.category) + 1,
                bbox=[box.x1, box.y1, box.x2 - box.x1 + 1, box.y2 - box.y1 + 1],
                area=int(mask.sum()),
                segmentation=dict(size=list(code["size"]), counts=code["counts"].decode()),
                iscrowd=0,
            )
        )
    return entries


def _scene(task: str, job: Job) -> Scene:
    """The scene of a job; the name of the split makes those of the three datasets differ."""
    _, split, index, options = job
    return render_scene(options.seed, index, (options.width, options.height), f"{task}/{split}")


def _write_imagenet(root: Path, split: str, count: int, options: SceneOptions, parallel_map: Mapper) -> None:
    wanted = crop_counts(count)
    found = dict.fromkeys(CROP_CLASSES, 0)
    for name in CROP_CLASSES:
        (root / "imagenet" / split / name).mkdir(parents=True, exist_ok=True)
    start = 0
    while missing := tuple(name for name in CROP_CLASSES if found[name] < wanted[name]):
        jobs = [(options.seed, split, index, missing) for index in range(start, start + ROUND)]
        start += ROUND
        for crops in parallel_map(_crops, jobs):
            for name, data in crops.items():
                if found[name] < wanted[name]:
                    _imagenet_file(root, split, name, found[name]).write_bytes(data)
                    found[name] += 1


def _crops(job: tuple[int, str, int, tuple[str, ...]]) -> dict[str, bytes]:
    """JPEG files of the largest whole object of each of the classes that a scene shows."""
    seed, split, index, classes = job
    scene = render_scene(seed, index, CROP_SCENE, f"imagenet/{split}")
    crops = {}
    for name in classes:
        sides = {
            max(box.x2 - box.x1 + 1, box.y2 - box.y1 + 1): box
            for box in scene.boxes
            if box.category == name.replace("_", " ") and not box.occluded and not box.truncated
        }
        if max(sides, default=0) >= CROP_FROM:
            left, top, side = crop_box(sides[max(sides)], CROP_SCENE)
            image = scene.image[top : top + side, left : left + side]
            if side > CROP_MAX:
                image = cv2.resize(image, (CROP_MAX, CROP_MAX), interpolation=cv2.INTER_AREA)
            crops[name] = jpeg_bytes(image)
    return crops


def _imagenet_file(root: Path, split: str, name: str, number: int) -> Path:
    return root / "imagenet" / split / name / f"{name}_{number:05d}.JPEG"


def _write_coco(root: Path, split: str, count: int, options: SceneOptions, parallel_map: Mapper) -> None:
    for folder in ("annotations", f"{split}2017"):
        (root / "coco" / folder).mkdir(parents=True, exist_ok=True)
    content: dict[str, list] = dict(
        images=[],
        annotations=[],
        categories=[dict(id=number, name=name) for number, name in enumerate(DET_CATEGORIES, start=1)],
    )
    jobs = [(root, split, index, options) for index in range(count)]
    for index, entries in enumerate(parallel_map(_coco_image, jobs)):
        image_id = index + 1
        name = _coco_file(root, split, index).name
        content["images"].append(dict(id=image_id, file_name=name, width=options.width, height=options.height))
        for entry in entries:
            content["annotations"].append(dict(id=len(content["annotations"]) + 1, image_id=image_id, **entry))
    path = root / "coco/annotations" / f"instances_{split}2017.json"
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")


def _coco_image(job: Job) -> list[dict[str, Any]]:
    scene = _scene("coco", job)
    _coco_file(*job[:3]).write_bytes(jpeg_bytes(scene.image))
    return coco_annotations(scene)


def _coco_file(root: Path, split: str, index: int) -> Path:
    return root / "coco" / f"{split}2017" / f"{index + 1:012d}.jpg"


def _write_ade20k(root: Path, split: str, count: int, options: SceneOptions, parallel_map: Mapper) -> None:
    for path in _ade20k_files(root, split, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
    for _ in parallel_map(_ade20k_image, [(root, split, index, options) for index in range(count)]):
        pass


def _ade20k_image(job: Job) -> None:
    scene = _scene("ade20k", job)
    image, annotation = _ade20k_files(*job[:3])
    image.write_bytes(jpeg_bytes(scene.image))
    annotation.write_bytes(png_bytes(np.where(scene.sem_seg == IGNORE, 0, scene.sem_seg + 1).astype(np.uint8)))


def _ade20k_files(root: Path, split: str, index: int) -> tuple[Path, Path]:
    folder, stem = {"train": "training", "val": "validation"}[split], f"ADE_{split}_{index + 1:08d}"
    return root / "ade20k/images" / folder / f"{stem}.jpg", root / "ade20k/annotations" / folder / f"{stem}.png"


def _is_whole(root: Path, options: SceneOptions) -> bool:
    """Whether no file has been removed since."""
    files: list[Path] = []
    for split, count in (("train", options.train), ("val", options.val)):
        files.append(root / "coco/annotations" / f"instances_{split}2017.json")
        for name, number in crop_counts(count).items():
            files += [_imagenet_file(root, split, name, index) for index in range(number)]
        for index in range(count):
            files += [_coco_file(root, split, index), *_ade20k_files(root, split, index)]
    return all(path.is_file() for path in files)
