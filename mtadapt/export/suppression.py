"""Non-maximum suppression of a batch as one operator of a graph."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import torchvision
from torch import Tensor

#: Score of a place that holds no box.
NOTHING = -1.0


def keep_best(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Mark the boxes that no better one of the same image overlaps by more than the threshold.

    All images pass torchvision's operator together, each moved to a place of its own. That happens in double precision,
    where the move changes no overlap.

    Args:
        boxes: ``(N, M, 4)``, ``xyxy`` in pixels.
        scores: ``(N, M)``; :data:`NOTHING` where there is no box.
        iou_threshold: a box whose IoU equals it is kept.

    Returns:
        ``(N, M)`` bool.
    """
    images, places = scores.shape
    number = torch.arange(images, device=boxes.device, dtype=torch.float64)[:, None, None]
    low, high = boxes.amin().double(), boxes.amax().double()
    apart = ((boxes.double() - low) + number * (high - low + 1)).reshape(images * places, 4)
    flat = scores.reshape(images * places)
    present = (flat > NOTHING / 2).nonzero().squeeze(1)
    kept = present[torchvision.ops.nms(apart[present], flat[present].double(), iou_threshold)]
    marked = torch.zeros_like(flat, dtype=torch.bool)
    return marked.index_fill(0, kept, True).reshape(images, places)


@torch.library.custom_op("mtadapt::keep_best", mutates_args=())
def _keep_best_op(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return keep_best(boxes, scores, iou_threshold)


@_keep_best_op.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    return torch.empty_like(scores, dtype=torch.bool)


#: The operator in a graph: ONNX has one of its own for a whole batch, see :mod:`mtadapt.export.translations`.
OPERATOR = torch.ops.mtadapt.keep_best.default


_PLAIN: ContextVar[bool] = ContextVar("plain_suppression", default=False)


def suppress(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """:func:`keep_best`, as one operator of a graph unless :func:`plain_suppression` is on."""
    return (keep_best if _PLAIN.get() else OPERATOR)(boxes, scores, iou_threshold)


@contextmanager
def plain_suppression() -> Iterator[None]:
    """Trace torchvision's operator and what is around it, for files that are read without mtadapt."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)
