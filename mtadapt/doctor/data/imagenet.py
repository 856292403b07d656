"""ImageNet: one folder a class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import cv2

from mtadapt.datasets.transforms.loading import read_image
from mtadapt.doctor.data.files import IMAGES, list_files, missing_files, read_sample
from mtadapt.doctor.finding import Finding

CLASSES = 1000
_WORDNET_ID = re.compile(r"n\d{8}")


def is_imagenet(root: Path) -> bool:
    """Whether ``train`` or ``val`` has folders with images."""
    for split in ("train", "val"):
        folder = root / split
        if folder.is_dir():
            with os.scandir(folder) as entries:
                if any(entry.is_dir() and list_files(Path(entry.path)) for entry in entries):
                    return True
    return False


def examine_imagenet(root: Path, check_all: bool) -> list[Finding]:
    """Count classes and images a split, compare the classes, and read a sample."""
    classes = {split: _classes(root / split) for split in ("train", "val")}
    findings = [finding for split in classes for finding in _examine_split(root, split, classes[split], check_all)]
    train, val = (set(found) for found in classes.values())
    if train and val and train != val:
        odd = sorted(train ^ val)
        detail = f"{len(odd)} classes are in one of train and val alone; first: {odd[0]}"
        remedy = "give both the same class folders: classes are numbered by their order"
        findings.append(Finding("data", "classes", "problem", detail, remedy))
    return findings


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def _examine_split(root: Path, split: str, classes: list[str], check_all: bool) -> Iterator[Finding]:
    folder, name = root / split, f"{split} cls"
    annotated = root / "meta" / f"{split}.txt"
    if not classes:
        yield _without_classes(folder, name, annotated)
        return
    files = {one: list(list_files(folder / one, IMAGES).values()) for one in classes}
    paths = [path for found in files.values() for path in found]
    detail = f"{len(paths):,} images in {len(classes):,} class folders"
    if len(classes) == CLASSES:
        yield Finding("data", name, "ok", detail)
    elif all(_WORDNET_ID.fullmatch(one) for one in classes):
        remedy = f"copy the other classes, or set num_classes={len(classes)} and metainfo in the config"
        yield Finding("data", name, "warning", f"{detail}, ImageNet-1k has {CLASSES:,}", remedy)
    else:  # another data set in this layout
        yield Finding("data", name, "ok", f"{detail} of its own: a config needs num_classes={len(classes)} and metainfo")
    empty = [one for one, found in files.items() if not found]
    yield from missing_files(name, "class folders are empty", empty, len(classes), f"unpack the images into {folder}")
    yield from read_sample(
        f"{split} files", "images", paths, check_all, lambda path: read_image(str(path), cv2.IMREAD_COLOR)
    )


def _without_classes(folder: Path, name: str, annotated: Path) -> Finding:
    """A split that is missing, or whose images lie side by side."""
    flat = len(list_files(folder))
    if not flat:
        return Finding("data", name, "problem", f"{folder}: missing or empty", f"unpack the images into {folder}/<class>")
    if annotated.is_file():
        return Finding("data", name, "ok", f"{flat:,} images, classes from {annotated}")
    detail = f"{folder}: {flat:,} images without class folders, and no {annotated}"
    return Finding("data", name, "problem", detail, f"sort them into {folder}/<class>, or write their classes into {annotated}")
