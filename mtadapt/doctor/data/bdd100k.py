"""BDD100K in its official layout, and whatever was written in it: rendered scenes, CamVid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mtadapt.datasets.bdd100k import IMAGE_SETS, SPLITS
from mtadapt.datasets.bdd100k_classes import DET_IGNORED, DET_NAMES, METAINFO
from mtadapt.datasets.scalabel import FrameBoxes, read_boxes
from mtadapt.datasets.transforms import LoadImage, LoadMultiTaskAnnotations
from mtadapt.doctor.data.files import list_files, missing_files, read_sample, split_message
from mtadapt.doctor.finding import Finding
from mtadapt.errors import MTAdaptError

PAGE = "see docs/prepare_bdd100k.md for the layout"
DENSE = ("drivable", "sem_seg")
_CLASSES = {task: meta["classes"] for task, meta in METAINFO["tasks"].items()}


def is_bdd100k(root: Path) -> bool:
    """Whether a folder has BDD100K's images or labels."""
    marks = ("images/100k", "images/10k", "labels/det_20", "labels/drivable/masks", "labels/sem_seg/masks")
    return any((root / mark).is_dir() for mark in marks)


def examine_bdd100k(root: Path, check_all: bool) -> list[Finding]:
    """Count images and labels a split and task, match them, and read a sample."""
    findings = []
    for split in SPLITS:
        images = {name: list_files(root / "images" / name / split, (".jpg",)) for name in ("100k", "10k")}
        if not any(images.values()):
            # The test split has no labels, and nothing needs it.
            if split != "test":
                detail = f"no .jpg in {root}/images/100k/{split} and images/10k/{split}"
                findings.append(Finding("data", split, "problem", detail, PAGE))
            continue
        counts = ", ".join(f"{len(found):,} in {name}" for name, found in images.items())
        findings.append(Finding("data", f"{split} images", "ok", f"{counts}{_overlap(root, split, images)}"))
        masks: dict[str, dict[str, Path]] = {}
        boxes: dict[str, FrameBoxes] = {}
        if split != "test":
            findings.extend(_examine_boxes(root, split, images["100k"], boxes))
            for task in DENSE:
                masks[task] = list_files(root / "labels" / task / "masks" / split, (".png",))
                findings.extend(_examine_masks(root, split, task, images[IMAGE_SETS[task]], masks[task]))
        findings.extend(_read(split, images, boxes, masks, check_all))
    if not any((root / "labels" / folder).is_dir() for folder in ("det_20", *(f"{task}/masks" for task in DENSE))):
        findings.append(Finding("data", "labels", "problem", f"no labels of any task in {root}/labels", PAGE))
    return findings


def _overlap(root: Path, split: str, images: Mapping[str, Mapping[str, Path]]) -> str:
    if split != "train":
        return ""
    held_out = {stem for name in images for stem in list_files(root / "images" / name / "val", (".jpg",))}
    both = len(held_out & {stem for found in images.values() for stem in found})
    return f"; {both:,} are also in val and are left out of training" if both else ""


def _examine_boxes(
    root: Path, split: str, images: Mapping[str, Path], boxes: dict[str, FrameBoxes]
) -> Iterator[Finding]:
    """Read the detection file into ``boxes``, and match it with the images."""
    name, path = f"{split} det", root / "labels" / "det_20" / f"det_{split}.json"
    if not path.is_file():
        yield _absent(root, name, "det", path)
        return
    class_ids = {name: label for label, name in enumerate(_CLASSES["det"])}
    class_ids.update({alias: class_ids[category] for alias, category in DET_NAMES.items()})
    try:
        found, bad = read_boxes(path, class_ids, DET_IGNORED, skip_bad=True)
        boxes.update(found)
        if bad:
            read_boxes(path, class_ids, DET_IGNORED, skip_bad=False)  # tells the first one
    except MTAdaptError as error:
        detail, remedy = split_message(str(error))
        counted = f"{bad:,} labels cannot be used; first: " if boxes else ""
        yield Finding("data", name, "problem", counted + detail, remedy)
        if not boxes:
            return
    number = sum(one.num for one in boxes.values())
    without = sum(stem not in boxes for stem in images)
    counted = f"{len(boxes):,} images with {number:,} boxes"
    more = f"; {without:,} of {len(images):,} images have no entry and are left out of det" if without else ""
    yield Finding("data", name, "ok", counted + more)
    lost = sorted(stem for stem in boxes if stem not in images)
    remedy = f"copy the images into {root}/images/100k/{split}"
    yield from missing_files(name, "entries have no image", lost, len(boxes), remedy)


def _examine_masks(
    root: Path, split: str, task: str, images: Mapping[str, Path], masks: Mapping[str, Path]
) -> Iterator[Finding]:
    """Match masks and images of a task."""
    name, folder = f"{split} {task}", root / "labels" / task / "masks" / split
    if not masks:
        yield _absent(root, name, task, folder)
        return
    yield Finding("data", name, "ok", f"{len(masks):,} masks")
    without = [f"{stem}.jpg" for stem in images if stem not in masks]
    yield from missing_files(name, "images have no mask", without, len(images), f"copy the masks into {folder}")
    lost = [f"{stem}.png" for stem in masks if stem not in images]
    remedy = f"copy the images into {root}/images/{IMAGE_SETS[task]}/{split}"
    yield from missing_files(name, "masks have no image", lost, len(masks), remedy)


def _absent(root: Path, name: str, task: str, path: Path) -> Finding:
    """A task without labels in a split: a choice where it has none at all, else a mistake."""
    folder = root / "labels" / ("det_20" if task == "det" else f"{task}/masks")
    started = folder.is_dir() and any(folder.iterdir())
    remedy = f"put the labels there ({PAGE}), or leave {task!r} out of tasks"
    return Finding("data", name, "problem" if started else "warning", f"{path}: missing", remedy)


def _read(
    split: str,
    images: Mapping[str, Mapping[str, Path]],
    boxes: Mapping[str, FrameBoxes],
    masks: Mapping[str, Mapping[str, Path]],
    check_all: bool,
) -> list[Finding]:
    """Read images with their masks as the pipelines do."""
    load_image, load_masks = LoadImage(), LoadMultiTaskAnnotations()
    num_classes = {task: len(_CLASSES[task]) for task in DENSE}

    def read(item: tuple[str, str, Path]) -> None:
        image_set, stem, path = item
        results = load_image.transform(dict(img_path=str(path)))
        own = {task: found[stem] for task, found in masks.items() if IMAGE_SETS[task] == image_set and stem in found}
        load_masks.transform(
            dict(results, num_classes=num_classes, seg_map_paths={task: str(mask) for task, mask in own.items()})
        )
        if image_set == "100k" and stem in boxes:
            _check_boxes(path, results["ori_shape"], boxes[stem])

    items = [(name, stem, path) for name, found in images.items() for stem, path in found.items()]
    return read_sample(f"{split} files", "images with their labels", items, check_all, read)


def _check_boxes(path: Path, shape: tuple[int, int], packed: FrameBoxes) -> None:
    corners = packed.unpack()[0]
    outside = (corners[:, 0] >= shape[1]) | (corners[:, 1] >= shape[0]) | (corners[:, 2:] <= 0).any(axis=1)
    if outside.any():
        box = [float(value) for value in corners[outside.argmax()]]
        raise MTAdaptError(
            f"{path}: box {box} lies outside the image of {shape[1]}x{shape[0]}; correct the label, or train with "
            f"on_error='skip'"
        )
