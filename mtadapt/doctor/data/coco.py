"""COCO 2017 in its public layout, and custom data in COCO's format."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import cv2
import msgspec

from mtadapt.datasets.multi_label.coco_labels import CocoInstances
from mtadapt.datasets.transforms.loading import read_image
from mtadapt.doctor.data.files import list_files, missing_files, read_sample, split_message
from mtadapt.doctor.finding import Finding
from mtadapt.errors import MTAdaptError


class _Size(msgspec.Struct, gc=False):
    file_name: str
    width: float | None = None
    height: float | None = None


class _Sizes(msgspec.Struct):
    images: list[_Size]


def is_coco(root: Path) -> bool:
    """Whether a folder has COCO's annotations or images."""
    return any((root / "annotations").glob("instances_*.json")) or (root / "train2017").is_dir()


def examine_coco(root: Path, check_all: bool) -> list[Finding]:
    """Count images, boxes and categories a split, match the files, and read a sample."""
    files = sorted((root / "annotations").glob("instances_*.json"))
    if not files:
        remedy = "unpack annotations_trainval2017.zip into the folder"
        return [Finding("data", "annotations", "problem", f"no instances_*.json in {root}/annotations", remedy)]
    findings: list[Finding] = []
    categories: dict[str, list[str]] = {}
    for path in files:
        split = path.stem.removeprefix("instances_")
        try:
            instances = CocoInstances.read(str(path))
        except MTAdaptError as error:
            findings.append(Finding("data", f"{split} det", "problem", *split_message(str(error))))
            continue
        categories[split] = [one.name for one in sorted(instances.categories, key=lambda one: one.id)]
        findings.extend(_examine_split(root, split, path, instances, check_all))
    findings.extend(_compare_categories(categories))
    return findings


def _examine_split(
    root: Path, split: str, path: Path, instances: CocoInstances, check_all: bool
) -> Iterator[Finding]:
    name = f"{split} det"
    labelled = {one.image_id for one in instances.annotations}
    yield Finding(
        "data",
        name,
        "ok",
        f"{len(instances.images):,} images, {len(labelled):,} of them with {len(instances.annotations):,} boxes of "
        f"{len(instances.categories)} categories",
    )
    empty = [f"{one.bbox} of image {one.image_id}" for one in instances.annotations if min(one.bbox[2:]) == 0]
    if empty:
        detail = f"{len(empty):,} boxes have no area and are left out; first: {empty[0]}"
        yield Finding("data", name, "warning", detail, "correct them, or leave them")
    folder = root / split
    present = {file.name for file in list_files(folder).values()}
    if not present:
        elsewhere = root / "images" / split
        remedy = f"mv {elsewhere} {folder}" if elsewhere.is_dir() else f"unpack the images of {split} there"
        yield Finding("data", f"{split} images", "problem", f"{folder}: no image there", remedy)
        return
    lost = sorted(one.file_name for one in instances.images if one.file_name not in present)
    yield from missing_files(
        f"{split} images", "images are not there", lost, len(instances.images), f"copy them into {folder}"
    )
    try:
        sizes = {one.file_name: one for one in msgspec.json.decode(path.read_bytes(), type=_Sizes).images}
    except msgspec.ValidationError as error:
        yield Finding("data", name, "problem", f"{path}: {error}", "write width and height as numbers")
        return
    names = sorted(present & sizes.keys())
    yield from read_sample(
        f"{split} files", "images", names, check_all, lambda one: _check_image(folder / one, sizes[one], path)
    )


def _check_image(image: Path, size: _Size, annotations: Path) -> None:
    height, width = read_image(str(image), cv2.IMREAD_COLOR).shape[:2]
    if None not in (size.width, size.height) and (size.width, size.height) != (width, height):
        raise MTAdaptError(
            f"{image}: is {width}x{height}, in {annotations.name} {size.width:g}x{size.height:g}; its boxes are off: use the "
            f"image that was labelled"
        )


def _compare_categories(categories: Mapping[str, list[str]]) -> list[Finding]:
    """Labels are numbered in the order of each file's categories, so all files need the same ones."""
    if len({tuple(names) for names in categories.values()}) < 2:
        return []
    (first, names), *others = categories.items()
    split, differ = next((split, other) for split, other in others if other != names)
    odd = sorted(set(names) ^ set(differ)) or ["the order"]
    detail = f"the categories of {split} are not those of {first}: {', '.join(odd[:5])} differ"
    return [Finding("data", "categories", "problem", detail, "write the same categories in the same order in all files")]
