"""Scalabel JSON: all tasks of a frame in one entry."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtadapt.apis.outputs.base import JsonList, Output
from mtadapt.apis.outputs.predictions import Boxes, boxes_of, encode_mask, image_size, label_of, map_of
from mtadapt.apis.sources import Frame
from mtadapt.structures import MultiTaskDataSample


class ScalabelFile(Output):
    """``{"frames": [...]}`` with one entry of :func:`scalabel_frame` a frame.

    Args:
        path: the file.
        metas: task to its ``classes``.
        overwrite: whether a file that is there is replaced.
    """

    def __init__(self, path: Path, metas: Mapping[str, Mapping[str, Any]], overwrite: bool = False) -> None:
        super().__init__(path, overwrite)
        self.metas = metas
        self._file = JsonList(path, '{"frames": [', "]}")

    def add(self, frame: Frame, sample: MultiTaskDataSample, picture: np.ndarray | None) -> None:
        """Write a frame's entry."""
        self._file.add(scalabel_frame(frame, sample, self.metas))

    def finish(self) -> list[Path]:
        """Close the file."""
        return [self._file.finish()]

    def abort(self) -> None:
        """Remove the file."""
        self._file.abort()


def scalabel_frame(frame: Frame, sample: MultiTaskDataSample, metas: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One image's predictions as an entry of Scalabel.

    A box is a label with ``box2d`` and ``score``; a class of a dense task is a label with ``rle``, COCO's run-length
    code of its pixels; the class of a whole image is an attribute of the frame, named after its task. The attribute
    ``task`` tells where a label comes from. All detections of the model are there, whatever their score.

    Args:
        frame: the image; its own pixels are not looked at.
        sample: its predictions.
        metas: task to its ``classes``.

    Reference:
        https://doc.scalabel.com/format.html
    """
    height, width = image_size(sample)
    entry: dict[str, Any] = dict(name=frame.file_name)
    if frame.video is not None:
        entry.update(videoName=frame.video, frameIndex=frame.number)
    entry.update(size=dict(width=width, height=height), attributes={}, labels=[])
    for task in metas:
        if task not in sample.tasks:
            continue
        native, classes = sample.task(task), metas[task]["classes"]
        labels = [*_boxes(boxes_of(native), classes), *_segments(map_of(native), classes)]
        entry["labels"] += [dict(each, attributes=dict(task=task)) for each in labels]
        label = label_of(native)
        if label is not None:
            entry["attributes"][task] = classes[label[0]]
            if label[1] is not None:
                entry["attributes"][f"{task}_score"] = round(label[1], 6)
    for number, label in enumerate(entry["labels"]):
        label["id"] = str(number)
    return entry


def box2d(corners: np.ndarray) -> dict[str, float]:
    """Corners ``xyxy`` of a half-open box as Scalabel has them, the last pixel included.

    A box of less than a pixel becomes one of a pixel.
    """
    x1, y1, x2, y2 = (float(value) for value in corners)
    return dict(x1=x1, y1=y1, x2=max(x2 - 1, x1), y2=max(y2 - 1, y1))


def _boxes(boxes: Boxes | None, classes: Any) -> list[dict[str, Any]]:
    if boxes is None:
        return []
    return [
        dict(id="", category=classes[label], score=float(score), box2d=box2d(corners))
        for corners, label, score in zip(boxes.corners, boxes.labels, boxes.scores, strict=True)
    ]


def _segments(ids: np.ndarray | None, classes: Any) -> list[dict[str, Any]]:
    if ids is None:
        return []
    # COCO's code goes down the columns: compared in this order, a large map takes a third of the time.
    ids = np.asfortranarray(ids)
    found = [value for value in np.unique(ids) if value < len(classes)]
    return [dict(id="", category=classes[value], rle=encode_mask(ids == value)) for value in found]
