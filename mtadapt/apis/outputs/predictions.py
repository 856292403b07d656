"""Plain values of native predictions, whichever library they come from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mmengine.structures import BaseDataElement
from pycocotools import mask as coco_mask
from torch import Tensor

from mtadapt.structures import MultiTaskDataSample


class Boxes(NamedTuple):
    """Detections.

    Attributes:
        corners: ``(n, 4)`` float64 ``xyxy`` in pixels, half-open: ``x2 - x1`` is the width.
        labels: ``(n,)`` int64.
        scores: ``(n,)`` float64.
        masks: ``(n, H, W)`` uint8, or None.
    """

    corners: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    masks: np.ndarray | None


def boxes_of(native: BaseDataElement) -> Boxes | None:
    """The detections of a native sample, best score first; None where the task predicts none."""
    instances = native.get("pred_instances")
    if instances is None or "bboxes" not in instances:
        return None
    corners = _array(getattr(instances.bboxes, "tensor", instances.bboxes)).astype(np.float64).reshape(-1, 4)
    scores = _array(instances.scores).astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    masks = _array(instances.masks).astype(np.uint8)[order] if "masks" in instances else None
    return Boxes(corners[order], _array(instances.labels).astype(np.int64)[order], scores[order], masks)


def map_of(native: BaseDataElement) -> np.ndarray | None:
    """The class ids ``(H, W)`` of a dense task; None where the task predicts none.

    They are uint8, or uint16 where one is above 255.
    """
    predicted = native.get("pred_sem_seg")
    if predicted is None:
        return None
    ids = _array(predicted.data).squeeze(0)
    return ids.astype(np.uint8 if ids.max(initial=0) < 256 else np.uint16)


def label_of(native: BaseDataElement) -> tuple[int, float | None] | None:
    """The most probable class of the image and its score; None where the task predicts none."""
    label = native.get("pred_label")
    if label is None:
        return None
    number, score = int(_array(label).reshape(-1)[0]), native.get("pred_score")
    return number, None if score is None else float(_array(score).reshape(-1)[number])


def encode_mask(mask: np.ndarray) -> dict:
    """COCO's run-length code of a mask ``(H, W)``, with text instead of bytes."""
    code = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return dict(counts=code["counts"].decode("ascii"), size=[int(side) for side in code["size"]])


def image_size(sample: MultiTaskDataSample) -> tuple[int, int]:
    """Height and width of the original image."""
    height, width = sample.ori_shape
    return int(height), int(width)


def _array(value: Tensor | np.ndarray) -> np.ndarray:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
