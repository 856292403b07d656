"""Write images and labels in the folder layout and the label format of BDD100K."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.errors import MTAdaptError

DET_CATEGORIES: tuple[str, ...] = METAINFO["tasks"]["det"]["classes"]
WEATHERS = ("rainy", "snowy", "clear", "overcast", "undefined", "partly cloudy", "foggy")
SCENES = ("tunnel", "residential", "parking lot", "undefined", "city street", "gas stations", "highway")
TIMES_OF_DAY = ("daytime", "night", "dawn/dusk", "undefined")
LIGHT_COLORS = ("NA", "G", "R", "Y")
TIMESTAMP = 10000


@dataclass(frozen=True)
class FrameAttributes:
    """The three attributes of a BDD100K frame, in its own vocabularies."""

    weather: str = "undefined"
    timeofday: str = "undefined"
    scene: str = "undefined"


@dataclass(frozen=True)
class Box:
    """One labelled object.

    Args:
        category: One of ``DET_CATEGORIES``.
        x1, y1, x2, y2: The first and the last pixel column and row that the object covers. Both ends are inclusive,
            as in BDD100K, so a box of one pixel has ``x1 == x2``.
        occluded: Something hides a part of the object.
        truncated: The object goes on outside the image.
        light_color: State of a traffic light, one of ``LIGHT_COLORS``; ``'NA'`` for everything else.
        instance: Value of the object in a map of instances, 0 where there is no such map.
    """

    category: str
    x1: int
    y1: int
    x2: int
    y2: int
    occluded: bool = False
    truncated: bool = False
    light_color: str = "NA"
    instance: int = 0


@dataclass(frozen=True)
class Sample:
    """One image with everything that is to be written about it.

    Args:
        stem: File name without its ending.
        image: ``(H, W, 3)`` uint8 BGR, or the bytes of a JPEG file.
        boxes: Detection labels; none are written as ``"labels": null``.
        attributes: Attributes of the frame.
        drivable: ``(H, W)`` uint8 with 0 direct, 1 alternative, 2 background.
        sem_seg: ``(H, W)`` uint8 Cityscapes train ids with 255 = ignore; None keeps the image out of the 10k set.
    """

    stem: str
    image: np.ndarray | bytes
    drivable: np.ndarray
    sem_seg: np.ndarray | None = None
    boxes: Sequence[Box] = ()
    attributes: FrameAttributes = field(default_factory=FrameAttributes)


def jpeg_bytes(image: np.ndarray, quality: int = 90) -> bytes:
    """An image ``(H, W, 3)`` uint8 BGR as a JPEG file."""
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def png_bytes(labels: np.ndarray) -> bytes:
    """A map ``(H, W)`` uint8 as a PNG file."""
    assert labels.ndim == 2 and labels.dtype == np.uint8
    done, data = cv2.imencode(".png", labels)
    assert done
    return data.tobytes()


class BDD100KWriter:
    """Writer of one dataset folder.

    ``images/100k`` receives every image, with boxes and drivable area; ``images/10k`` receives the same file (a hard
    link where the file system allows it) where there is a semantic map. Files are written by :meth:`add`, which is
    safe to call from several processes; the label file of a split by :meth:`write_detection` at the end.

    Args:
        root: The folder, created when it is missing.
        jpeg_quality: Quality of the images that are encoded here, 1 to 100.

    Reference: https://doc.bdd100k.com/format.html
    """

    def __init__(self, root: str | Path, jpeg_quality: int = 90) -> None:
        self.root = Path(root)
        self.jpeg_quality = jpeg_quality

    def make_folders(self, split: str) -> None:
        """Create the folders of one split."""
        for folder in ("images/100k", "images/10k", "labels/drivable/masks", "labels/sem_seg/masks"):
            (self.root / folder / split).mkdir(parents=True, exist_ok=True)
        (self.root / "labels/det_20").mkdir(parents=True, exist_ok=True)

    def add(self, split: str, sample: Sample) -> dict[str, Any]:
        """Write the image and the maps of one sample.

        Returns:
            The sample's frame for :meth:`write_detection`.
        """
        name = f"{sample.stem}.jpg"
        image = sample.image if isinstance(sample.image, bytes) else jpeg_bytes(sample.image, self.jpeg_quality)
        path = self.root / "images/100k" / split / name
        path.unlink(missing_ok=True)  # never write through an older hard link
        path.write_bytes(image)
        self._write_map("drivable", split, sample.stem, sample.drivable)
        if sample.sem_seg is not None:
            _link(path, self.root / "images/10k" / split / name)
            self._write_map("sem_seg", split, sample.stem, sample.sem_seg)
        return frame_of(name, sample.boxes, sample.attributes)

    def write_detection(self, split: str, frames: Sequence[dict[str, Any]]) -> None:
        """Write ``labels/det_20/det_<split>.json``."""
        path = self.root / "labels/det_20" / f"det_{split}.json"
        path.write_text(json.dumps(list(frames), indent=1) + "\n", encoding="utf-8")

    def _write_map(self, task: str, split: str, stem: str, labels: np.ndarray) -> None:
        (self.root / "labels" / task / "masks" / split / f"{stem}.png").write_bytes(png_bytes(labels))


def frame_of(name: str, boxes: Sequence[Box], attributes: FrameAttributes) -> dict[str, Any]:
    """The Scalabel frame of one image, as it stands in ``det_20/det_*.json``.

    Raises:
        MTAdaptError: A category or an attribute is not one of BDD100K's.
    """
    for entry, value, known in (
        ("weather", attributes.weather, WEATHERS),
        ("timeofday", attributes.timeofday, TIMES_OF_DAY),
        ("scene", attributes.scene, SCENES),
        *(("category", box.category, DET_CATEGORIES) for box in boxes),
        *(("trafficLightColor", box.light_color, LIGHT_COLORS) for box in boxes),
    ):
        if value not in known:
            raise MTAdaptError(f"{name}: {entry} is {value!r}, BDD100K knows {', '.join(known)}")
    labels = [
        {
            "id": str(number),
            "attributes": {
                "occluded": box.occluded,
                "truncated": box.truncated,
                "trafficLightColor": box.light_color,
            },
            "category": box.category,
            "box2d": {"x1": box.x1, "y1": box.y1, "x2": box.x2, "y2": box.y2},
        }
        for number, box in enumerate(boxes)
    ]
    return {"name": name, "attributes": asdict(attributes), "timestamp": TIMESTAMP, "labels": labels or None}


def _link(source: Path, target: Path) -> None:
    """Give ``source`` a second name, or copy it where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())
