"""ADE20K of the scene parsing benchmark (ADEChallengeData2016)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from mtadapt.datasets.transforms import LoadImage, LoadMultiTaskAnnotations
from mtadapt.doctor.data.files import list_files, missing_files, read_sample
from mtadapt.doctor.finding import Finding

SPLITS = ("training", "validation")
#: 150 classes and 0, which stands for everything else.
NUM_IDS = 151


def find_ade20k(root: Path) -> Path | None:
    """Return the folder that holds ``images`` and ``annotations``: the root, or the one that the archive makes in it."""
    for folder in (root, root / "ADEChallengeData2016"):
        if any((folder / kind / split).is_dir() for kind in ("images", "annotations") for split in SPLITS):
            return folder
    return None


def examine_ade20k(root: Path, check_all: bool) -> list[Finding]:
    """Count and match images and masks a split, and read a sample."""
    folder = find_ade20k(root)
    assert folder is not None
    return [finding for split in SPLITS for finding in _examine_split(folder, split, check_all)]


def _examine_split(folder: Path, split: str, check_all: bool) -> Iterator[Finding]:
    name = f"{split} sem_seg"
    images = list_files(folder / "images" / split, (".jpg",))
    masks = list_files(folder / "annotations" / split, (".png",))
    for kind, found in (("images", images), ("annotations", masks)):
        if not found:
            remedy = "unpack ADEChallengeData2016.zip there"
            yield Finding("data", name, "problem", f"{folder / kind / split}: missing or empty", remedy)
    if not images or not masks:
        return
    yield Finding("data", name, "ok", f"{len(images):,} images, {len(masks):,} masks")
    without = [f"{stem}.jpg" for stem in images if stem not in masks]
    remedy = f"copy the masks into {folder}/annotations/{split}"
    yield from missing_files(name, "images have no mask", without, len(images), remedy)
    lost = [f"{stem}.png" for stem in masks if stem not in images]
    yield from missing_files(
        name, "masks have no image", lost, len(masks), f"copy the images into {folder}/images/{split}"
    )
    load_image, load_masks = LoadImage(), LoadMultiTaskAnnotations()

    def read(stem: str) -> None:
        results = load_image.transform(dict(img_path=str(images[stem])))
        paths = dict(sem_seg=str(masks[stem]))
        load_masks.transform(dict(results, num_classes=dict(sem_seg=NUM_IDS), seg_map_paths=paths))

    yield from read_sample(f"{split} files", "images with their masks", sorted(images.keys() & masks), check_all, read)
