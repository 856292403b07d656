"""Sources of arrays, and small folders in the layouts of ImageNet, COCO and ADE20K, for tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from mtadapt.datasets import HeterogeneousBatchSampler

CLASSES = dict(cls=("cat", "dog"), det=("car", "bus", "van"), sem_seg=("road", "sky"))


def sampler(sizes: Mapping[str, int], batch_size, seed: int = 0, groups: Mapping | None = None, **settings):
    """A batch sampler over sources that are only sizes."""
    dataset = SimpleNamespace(sizes=dict(sizes), aspect_ratio_groups=(groups or {}).get)
    return HeterogeneousBatchSampler(SimpleNamespace(dataset=dataset, seed=seed), batch_size, **settings)


def write_trio(root: Path, images: int = 6, size: tuple[int, int] = (40, 32)) -> None:
    """Random images as ImageNet folders, COCO JSON and ADE20K maps (0 = ignore)."""
    generator = np.random.default_rng(0)
    width, height = size

    def write(path: Path, array: np.ndarray) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), array)

    entries, boxes = [], []
    for number in range(images):
        pixels = generator.integers(0, 255, (3, height, width, 3), np.uint8)
        write(root / "imagenet" / "train" / CLASSES["cls"][number % 2] / f"{number}.JPEG", pixels[0])
        wide = number % 2 == 0
        write(root / "coco" / f"{number}.jpg", pixels[1] if wide else pixels[1].transpose(1, 0, 2))
        sides = (width, height) if wide else (height, width)
        entries.append(dict(id=number, file_name=f"{number}.jpg", width=sides[0], height=sides[1]))
        box = [4.0, 5.0, 12.0, 10.0]
        boxes.append(dict(id=number + 1, image_id=number, category_id=number % 3 + 1, bbox=box, area=120.0, iscrowd=0))
        write(root / "ade20k" / "images" / f"{number}.jpg", pixels[2])
        write(root / "ade20k" / "maps" / f"{number}.png", generator.integers(0, 3, (height, width), np.uint8))
    categories = [dict(id=number + 1, name=name) for number, name in enumerate(CLASSES["det"])]
    (root / "coco" / "train.json").write_text(
        json.dumps(dict(images=entries, annotations=boxes, categories=categories))
    )


def trio(root: Path) -> dict:
    """The three folders as sources with stock pipelines."""
    load = dict(type="LoadImageFromFile")
    return dict(
        in1k=dict(
            tasks=["cls"],
            dataset=dict(
                type="mmpretrain.ImageNet",
                data_root=str(root / "imagenet"),
                split="train",
                metainfo=dict(classes=CLASSES["cls"]),
                pipeline=[load, dict(type="RandomResizedCrop", scale=32), dict(type="PackInputs")],
            ),
        ),
        coco=dict(
            tasks=["det"],
            dataset=dict(
                type="mmdet.CocoDataset",
                data_root=str(root / "coco"),
                ann_file="train.json",
                data_prefix=dict(img=""),
                metainfo=dict(classes=CLASSES["det"]),
                pipeline=[
                    load,
                    dict(type="LoadAnnotations", with_bbox=True),
                    dict(type="RandomFlip", prob=0.5),
                    dict(type="PackDetInputs"),
                ],
            ),
        ),
        ade20k=dict(
            tasks=["sem_seg"],
            dataset=dict(
                type="mmseg.BaseSegDataset",
                data_root=str(root / "ade20k"),
                data_prefix=dict(img_path="images", seg_map_path="maps"),
                reduce_zero_label=True,
                metainfo=dict(classes=CLASSES["sem_seg"]),
                pipeline=[
                    load,
                    dict(type="LoadAnnotations"),
                    dict(type="RandomCrop", crop_size=(24, 24)),
                    dict(type="PackSegInputs"),
                ],
            ),
        ),
    )
