"""Scalabel JSON, the label format of BDD100K, read into compact arrays.

Reference:
    https://doc.scalabel.com/format.html and the BDD100K toolkit's ``to_coco`` for the meaning of inclusive corners.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from mtadapt.errors import MTAdaptError


class Box2D(msgspec.Struct, gc=False):
    """Corners in pixels, both inclusive: a box of one pixel has ``x1 == x2``."""

    x1: float
    y1: float
    x2: float
    y2: float


class Label(msgspec.Struct, gc=False):
    """One labelled object; labels without ``box2d`` (lanes, polygons) are not detections."""

    category: str
    box2d: Box2D | None = None


class Frame(msgspec.Struct):
    """One image's entry."""

    name: str
    attributes: dict[str, str | bool | float | list[str] | None] | None = None
    labels: list[Label] | None = None


class _Document(msgspec.Struct):
    frames: list[Frame]


class FrameBoxes(NamedTuple):
    """The boxes of one frame.

    Attributes:
        boxes: ``(n, 4)`` float32 ``xyxy`` in pixels, half-open: ``x2 - x1`` is the width.
        labels: ``(n,)`` uint8 class indices.
        ignore: ``(n,)`` bool, True for regions that are neither trained on nor counted (``iscrowd`` in COCO's words).
        attributes: image-level attributes, such as the weather.
    """

    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    attributes: dict


def decode_frames(path: Path) -> list[Frame]:
    """Decode a Scalabel file: a list of frames, or an object with the key ``frames``.

    Raises:
        MTAdaptError: when the file is missing, is not JSON or does not follow the format.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MTAdaptError(f"{path}: cannot be read ({error.strerror}); place the detection labels there") from error
    wrapped = raw[:64].lstrip().startswith(b"{")
    try:
        return (
            msgspec.json.decode(raw, type=_Document).frames if wrapped else msgspec.json.decode(raw, type=list[Frame])
        )
    except msgspec.ValidationError as error:
        raise MTAdaptError(f"{path}: {_named_entry(raw, wrapped, str(error))}; see the Scalabel format") from error
    except msgspec.DecodeError as error:
        raise MTAdaptError(
            f"{path}: broken JSON ({error}, file of {len(raw)} bytes); download the file again"
        ) from error


def _named_entry(raw: bytes, wrapped: bool, message: str) -> str:
    """Add the frame's name to a validation message that points at ``$[12].labels[3]``."""
    where = re.search(r"\$(?:\.frames)?\[(\d+)\]", message)
    if where is None:
        return message
    document = msgspec.json.decode(raw)
    frames = document["frames"] if wrapped else document
    frame = frames[int(where.group(1))]
    name = frame.get("name") if isinstance(frame, dict) else None
    return f"frame {name!r}: {message}" if name else message


def pack_boxes(
    frame: Frame, path: Path, class_ids: dict[str, int], ignored: dict[str, str], skip_bad: bool
) -> tuple[FrameBoxes, int]:
    """Turn a frame's labels into arrays.

    Args:
        frame: the decoded entry.
        path: its file, for messages.
        class_ids: category name (all accepted spellings) to class index.
        ignored: category that becomes an ignore region to the category that it is taken for.
        skip_bad: leave out impossible boxes and unknown categories instead of raising.

    Returns:
        The boxes, and how many labels were left out.

    Raises:
        MTAdaptError: for an unknown category or an impossible box, unless ``skip_bad``.
    """
    boxes, labels, ignore, bad = [], [], [], 0
    for number, label in enumerate(frame.labels or ()):
        box = label.box2d
        if box is None:
            continue
        category = ignored.get(label.category, label.category)
        problem = None
        if category not in class_ids:
            problem = f"unknown category {label.category!r}; known: {', '.join([*class_ids, *ignored])}"
        elif not all(map(math.isfinite, (box.x1, box.y1, box.x2, box.y2))) or box.x2 < box.x1 or box.y2 < box.y1:
            problem = (
                f"impossible box ({box.x1:g}, {box.y1:g}, {box.x2:g}, {box.y2:g}); x1 <= x2 and y1 <= y2 are needed"
            )
        if problem:
            if not skip_bad:
                raise MTAdaptError(
                    f"{path}: frame {frame.name!r}, label {number}: {problem}; correct it or set on_error='skip'"
                )
            bad += 1
            continue
        boxes.append((box.x1, box.y1, box.x2 + 1, box.y2 + 1))
        labels.append(class_ids[category])
        ignore.append(label.category in ignored)
    return (
        FrameBoxes(
            np.array(boxes, np.float32).reshape(-1, 4),
            np.array(labels, np.uint8),
            np.array(ignore, bool),
            {key: value for key, value in (frame.attributes or {}).items() if isinstance(value, str)},
        ),
        bad,
    )
