"""Scalabel JSON, the label format of BDD100K, read into compact arrays.

Reference:
    https://doc.scalabel.com/format.html and the BDD100K toolkit's ``to_coco`` for the meaning of inclusive corners.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
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


class _RawDocument(msgspec.Struct):
    frames: list[msgspec.Raw]


#: Frames that are decoded at a time: their labels as objects take some ten times the memory of their arrays.
_BLOCK = 250
#: Four float32, a uint8 and a bool.
_BYTES_A_BOX = 18


class FrameBoxes(NamedTuple):
    """The boxes of one frame, as the bytes of their three arrays: pickled arrays would take twice the memory.

    Attributes:
        data: ``boxes``, ``labels`` and ``ignore``, one behind the other.
        attributes: image-level attributes, such as the weather.
    """

    data: bytes
    attributes: dict[str, str]

    @classmethod
    def pack(cls, boxes: np.ndarray, labels: np.ndarray, ignore: np.ndarray, attributes: dict) -> FrameBoxes:
        """Pack arrays of the types that :meth:`unpack` returns."""
        return cls(b"".join((boxes.tobytes(), labels.tobytes(), ignore.tobytes())), attributes)

    @property
    def num(self) -> int:
        """Number of boxes."""
        return len(self.data) // _BYTES_A_BOX

    def unpack(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return new arrays.

        Returns:
            boxes: ``(n, 4)`` float32 ``xyxy`` in pixels, half-open: ``x2 - x1`` is the width.
            labels: ``(n,)`` uint8 class indices.
            ignore: ``(n,)`` bool, True for regions that are neither trained on nor counted (``iscrowd`` in COCO's
                words).
        """
        number = self.num
        boxes = np.frombuffer(self.data, np.float32, 4 * number).reshape(-1, 4)
        labels = np.frombuffer(self.data, np.uint8, number, offset=16 * number)
        ignore = np.frombuffer(self.data, np.bool_, number, offset=17 * number)
        return boxes.copy(), labels.copy(), ignore.copy()


def read_boxes(
    path: Path, class_ids: Mapping[str, int], ignored: Mapping[str, str], skip_bad: bool
) -> tuple[dict[str, FrameBoxes], int]:
    """Read a Scalabel file, a list of frames or an object with the key ``frames``, into arrays.

    Args:
        path: the file.
        class_ids: category name (all accepted spellings) to class index.
        ignored: category that becomes an ignore region to the category that it is taken for.
        skip_bad: leave out impossible boxes and unknown categories instead of raising.

    Returns:
        Stem of the image to its boxes, and how many labels were left out.

    Raises:
        MTAdaptError: when the file is missing, is not JSON or does not follow the format; and for an unknown category
            or an impossible box, unless ``skip_bad``.
    """
    boxes: dict[str, FrameBoxes] = {}
    shared: dict[tuple, dict[str, str]] = {}
    num_bad = 0
    for frames in _decode_blocks(path):
        packed, bad = _pack_block(frames, path, class_ids, ignored, skip_bad)
        num_bad += bad
        for frame, (corners, labels, ignore) in zip(frames, packed, strict=True):
            stem = Path(frame.name).stem
            if stem in boxes:
                raise MTAdaptError(f"{path}: frame {frame.name!r} is there twice; merge its labels into one frame")
            boxes[stem] = FrameBoxes.pack(corners, labels, ignore, _attributes(frame, shared))
    return boxes, num_bad


def _decode_blocks(path: Path) -> Iterator[list[Frame]]:
    """Decode a file some frames at a time."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MTAdaptError(f"{path}: cannot be read ({error.strerror}); place the detection labels there") from error
    wrapped = raw[:64].lstrip().startswith(b"{")
    decoder = msgspec.json.Decoder(Frame)
    try:
        if wrapped:
            entries = msgspec.json.decode(raw, type=_RawDocument).frames
        else:
            entries = msgspec.json.decode(raw, type=list[msgspec.Raw])
        for start in range(0, len(entries), _BLOCK):
            yield [decoder.decode(entry) for entry in entries[start : start + _BLOCK]]
    except msgspec.DecodeError:
        _explain(path, raw, wrapped)
        raise


def _explain(path: Path, raw: bytes, wrapped: bool) -> None:
    """Decode a broken file in one piece, which tells the place of the error."""
    try:
        msgspec.json.decode(raw, type=_Document if wrapped else list[Frame])
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


def _pack_block(
    frames: Sequence[Frame], path: Path, class_ids: Mapping[str, int], ignored: Mapping[str, str], skip_bad: bool
) -> tuple[list[tuple[np.ndarray, np.ndarray, np.ndarray]], int]:
    """Turn the labels of some frames into corners, class indices and ignore flags a frame, and count the bad labels."""
    boxed = [[label for label in frame.labels or () if label.box2d is not None] for frame in frames]
    counts = np.array([len(labels) for labels in boxed])
    boxes = [label.box2d for labels in boxed for label in labels]
    categories = [label.category for labels in boxed for label in labels]
    corners: np.ndarray = np.fromiter(
        chain.from_iterable((box.x1, box.y1, box.x2, box.y2) for box in boxes if box), np.float64, 4 * len(boxes)
    ).reshape(-1, 4)
    known = {**class_ids, **{name: class_ids[taken_for] for name, taken_for in ignored.items()}}
    ids = np.array([known.get(category, -1) for category in categories], np.int64)
    ignore = np.array([category in ignored for category in categories], bool)
    good = np.isfinite(corners).all(axis=1) & (corners[:, 2:] >= corners[:, :2]).all(axis=1) & (ids >= 0)
    if not good.all():
        if not skip_bad:
            frame_number = int(np.searchsorted(counts.cumsum(), np.flatnonzero(~good)[0], side="right"))
            raise MTAdaptError(f"{path}: {_bad_label(frames[frame_number], known)}; correct it or set on_error='skip'")
        counts = np.array([part.sum() for part in np.split(good, counts.cumsum()[:-1])])
        corners, ids, ignore = corners[good], ids[good], ignore[good]
    # The corners are inclusive in the file.
    corners[:, 2:] += 1
    ends = counts.cumsum().tolist()
    half_open, labels = corners.astype(np.float32), ids.astype(np.uint8)
    slices = [slice(start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    return [(half_open[part], labels[part], ignore[part]) for part in slices], int((~good).sum())


def _bad_label(frame: Frame, known: Mapping[str, int]) -> str:
    """Say what is wrong with the first bad label of a frame."""
    for number, label in enumerate(frame.labels or ()):
        box = label.box2d
        if box is None:
            continue
        where = f"frame {frame.name!r}, label {number}"
        if label.category not in known:
            return f"{where}: unknown category {label.category!r}; known: {', '.join(known)}"
        finite = np.isfinite((box.x1, box.y1, box.x2, box.y2)).all()
        if not finite or box.x2 < box.x1 or box.y2 < box.y1:
            return (
                f"{where}: impossible box ({box.x1:g}, {box.y1:g}, {box.x2:g}, {box.y2:g}); "
                f"x1 <= x2 and y1 <= y2 are needed"
            )
    raise AssertionError(f"frame {frame.name!r} has no bad label")


def _attributes(frame: Frame, shared: dict[tuple, dict[str, str]]) -> dict[str, str]:
    """Return the frame's attributes that are text; the same object for equal ones, of which there are few."""
    items = tuple((key, value) for key, value in (frame.attributes or {}).items() if isinstance(value, str))
    return shared.setdefault(items, dict(items))
