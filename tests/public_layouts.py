"""ImageNet, COCO 2017 and ADE20K with a few small images, in their public layouts: folders, file names, all classes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
from mmdet.datasets import CocoDataset

# COCO numbers its 80 categories from 1 to 90.
COCO_GAPS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def _image(rng: np.random.Generator, path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def write_imagenet(root: Path, images: int = 2) -> None:
    """``{train,val}/<wnid>/*.JPEG``: a folder for each of the 1000 classes, few of which have images."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        names = [f"n{number:08d}" for number in range(1440764, 1441764)]
        for number, name in enumerate(names):
            (root / split / name).mkdir(parents=True)
            if number < images:
                _image(rng, root / split / name / f"{name}_{number + 1}.JPEG", (60, 48))


def write_coco(root: Path, images: int = 2) -> None:
    """``{train,val}2017/<12 digits>.jpg`` and ``annotations/instances_{train,val}2017.json``: polygons and a crowd."""
    rng = np.random.default_rng(1)
    numbers = [number for number in range(1, 91) if number not in COCO_GAPS]
    names = CocoDataset.METAINFO["classes"]
    categories = [dict(id=key, name=name) for key, name in zip(numbers, names, strict=True)]
    (root / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        entries = dict(images=[], annotations=[], categories=categories)
        for number in range(images):
            name = f"{number + 9:012d}.jpg"
            _image(rng, root / f"{split}2017" / name, (64, 48))
            entries["images"].append(dict(id=number + 9, file_name=name, width=64, height=48))
            boxes = [(4, 4, 50, 40, 3, 0), (30, 10, 30, 30, 90, 0), (0, 0, 20, 20, 1, 1)]
            for x, y, w, h, category, crowd in boxes:
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
                mask = dict(size=[48, 64], counts=[0, w * h, 48 * 64 - w * h]) if crowd else [outline]
                entries["annotations"].append(
                    dict(
                        id=len(entries["annotations"]) + 1,
                        image_id=number + 9,
                        category_id=category,
                        bbox=[x, y, w, h],
                        area=w * h,
                        segmentation=mask,
                        iscrowd=crowd,
                    )
                )
        (root / f"annotations/instances_{split}2017.json").write_text(json.dumps(entries))


def write_ade20k(root: Path, images: int = 2) -> None:
    """``{images,annotations}/{training,validation}/ADE_*``: maps of the 150 classes from 1, 0 is other."""
    rng = np.random.default_rng(2)
    for folder, split in (("training", "train"), ("validation", "val")):
        for number in range(1, images + 1):
            stem = f"ADE_{split}_{number:08d}"
            _image(rng, root / "images" / folder / f"{stem}.jpg", (64, 48))
            path = root / "annotations" / folder / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            classes = rng.integers(0, 151, (6, 8), dtype=np.uint8)
            cv2.imwrite(str(path), np.kron(classes, np.ones((8, 8), np.uint8)))
