"""What the graphs of all detectors do with boxes. Every tensor has one size for all images of the batch.

Where mmdet drops a box, a graph keeps its place and sets its score to :data:`~mtadapt.export.suppression.NOTHING`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder, DistancePointBBoxCoder
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.export.suppression import NOTHING, suppress


class Suppression(NamedTuple):
    """The settings ``nms`` and ``max_per_img`` of a stock head.

    Attributes:
        iou_threshold: of the suppression; mmcv compares in single precision.
        class_agnostic: whether boxes of different classes suppress each other.
        max_per_img: number of places of the result.
    """

    iou_threshold: float
    class_agnostic: bool
    max_per_img: int

    @classmethod
    def of(cls, settings: Mapping[str, Any], place: str) -> Suppression:
        """Read a test configuration.

        Args:
            settings: the stock head's ``test_cfg``.
            place: what it is called in messages.

        Raises:
            MTAdaptError: for a suppression that a graph has no operator for, or results without a largest number.
        """
        nms = dict(settings.get("nms") or {})
        kind = nms.pop("type", "nms")
        if kind != "nms" or "iou_threshold" not in nms:
            raise MTAdaptError(f"{place}.nms={settings.get('nms')}: only type='nms' with an iou_threshold is exported")
        threshold, agnostic = float(np.float32(nms.pop("iou_threshold"))), bool(nms.pop("class_agnostic", False))
        nms.pop("split_thr", None)
        if nms:
            raise MTAdaptError(f"{place}.nms: {', '.join(nms)} is not exported; leave it out")
        if settings.get("max_per_img", -1) <= 0:
            raise MTAdaptError(f"{place}.max_per_img={settings.get('max_per_img')}: write a number above 0")
        return cls(threshold, agnostic, int(settings["max_per_img"]))

    def best(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Suppress and take the best, as mmcv's ``batched_nms``.

        Args:
            boxes: ``(N, M, 4)``.
            scores: ``(N, M)``.
            labels: ``(N, M)`` int64; boxes of different labels do not suppress each other.

        Returns:
            Boxes ``(N, K, 4)``, scores ``(N, K)`` and labels ``(N, K)`` of ``max_per_img`` places, best first.
        """
        apart = boxes
        if not self.class_agnostic:
            # As mmcv moves the classes apart, so that single precision rounds the same.
            present = (scores > NOTHING / 2)[..., None]
            reach = boxes.masked_fill(~present, 0).amax(dim=(1, 2)) + 1
            apart = boxes + (labels.to(boxes) * reach[:, None])[..., None]
        kept = suppress(apart, scores, self.iou_threshold)
        scores, order = best_places(scores.masked_fill(~kept, NOTHING), self.max_per_img)
        return take(boxes, order), scores, take(labels[..., None], order)[..., 0]


def best_places(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` best of each row, best first; rows that are shorter are filled up with nothing.

    Args:
        scores: ``(N, M)``.
        count: how many.

    Returns:
        Scores and places, ``(N, count)``.
    """
    length = scores.shape[1]
    if not isinstance(length, int) or length < count:
        scores = F.pad(scores, (0, count), value=NOTHING)
    values, places = scores.topk(count, dim=1)
    return values, places.clamp(max=length - 1)


def take(rows: Tensor, places: Tensor) -> Tensor:
    """Rows ``(N, M, D)`` at places ``(N, K)``: ``(N, K, D)``."""
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))


def check_coder(coder: Any, place: str) -> None:
    """Refuse box coders that :func:`decode` does not know.

    Raises:
        MTAdaptError: with its name.
    """
    if type(coder) not in (DeltaXYWHBBoxCoder, DistancePointBBoxCoder):
        raise MTAdaptError(
            f"{place}.bbox_coder={type(coder).__name__}: exported are DeltaXYWHBBoxCoder and DistancePointBBoxCoder"
        )


def decode(coder: Any, priors: Tensor, predicted: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes from what a head predicts for its priors.

    Args:
        coder: the stock head's.
        priors: ``(N, M, 4)`` boxes or ``(N, M, 2)`` points.
        predicted: ``(N, M, 4)``.
        size: height and width of the image, to which boxes are clipped as the coder says.

    Returns:
        ``(N, M, 4)``.
    """
    flat = coder.decode(priors.reshape(-1, priors.shape[-1]), predicted.reshape(-1, 4), max_shape=None)
    boxes = get_box_tensor(flat).reshape(predicted.shape)
    if not coder.clip_border:
        return boxes
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack((x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)), dim=-1)


def without_small(scores: Tensor, boxes: Tensor, min_size: float) -> Tensor:
    """Scores without those of boxes that are not larger than ``min_size`` in both directions, if it is not negative."""
    if min_size < 0:
        return scores
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    return scores.masked_fill(~((width > min_size) & (height > min_size)), NOTHING)


def finished(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes, scores and labels as a graph gives them: 0, 0 and -1 where there is nothing."""
    nothing = scores < 0
    return boxes.masked_fill(nothing[..., None], 0), scores.clamp(min=0), labels.masked_fill(nothing, -1)
