"""Box overlap and the three kinds of non-maximum suppression. Boxes are ``xyxy``.

``offset`` is mmcv's: the width of a box is ``x2 - x1 + offset``.
"""

from __future__ import annotations

import numpy as np
import torch
import torchvision
from torch import Tensor


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Suppress boxes that overlap a better one by more than the threshold.

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``.
        iou_threshold: A box whose IoU equals the threshold is kept.
        offset: 0 or 1, added to every width and height.

    Returns:
        Indices of the kept boxes, best first, ``(K,)`` int64; of equal scores the earlier box comes first.
    """
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    boxes, scores = boxes.to(dtype), scores.to(dtype)
    if offset:
        boxes = torch.cat((boxes[:, :2], boxes[:, 2:] + offset), dim=1)
    if dtype == torch.float32:  # mmcv compares in float32, torchvision on CPU with a double: an IoU of 3/5 exceeds 0.6
        iou_threshold = float(np.float32(iou_threshold))
    return torchvision.ops.nms(boxes, scores, iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Decay the scores of overlapping boxes instead of dropping the boxes.

    As in mmcv this runs on the CPU, and the order of the boxes that wait, which decides between equal scores, is that
    of the compiled loop: the best box changes places with the first, a dropped one is replaced by the last.
    Ours: two boxes without area do not overlap (compiled: NaN).

    Args:
        boxes: ``(N, 4)``.
        scores: ``(N,)``.
        dets: Output ``(N, 5)``; its first K rows are filled with the kept boxes and their decayed scores.
        iou_threshold: Overlap from which the methods 0 and 1 act.
        sigma: Width of the gaussian.
        min_score: A box whose decayed score is below is dropped.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: 0 or 1, added to every width and height.

    Returns:
        Indices of the kept boxes in the order of their selection, ``(K,)`` int64.

    Reference:
        Bodla et al., Soft-NMS: Improving Object Detection With One Line of Code, ICCV 2017.
    """
    dtype = np.float64 if boxes.dtype == torch.float64 else np.float32
    rows: np.ndarray = torch.cat((boxes, scores[:, None].to(boxes)), dim=1).numpy(force=True).astype(dtype, copy=True)
    index = np.arange(len(rows))
    count, selected = len(rows), 0
    while selected < count:
        best = selected + int(rows[selected:count, 4].argmax())
        rows[[selected, best]], index[[selected, best]] = rows[[best, selected]], index[[best, selected]]
        waiting = slice(selected + 1, count)
        overlap = _iou(rows[selected], rows[waiting], offset)
        if method == 2:
            decay = np.exp(-(overlap**2) / dtype(sigma))
        else:
            decay = np.where(overlap >= dtype(iou_threshold), 0 if method == 0 else 1 - overlap, 1).astype(dtype)
        decayed = rows[waiting, 4] * decay
        rows[waiting, 4] = decayed
        order = selected + 1 + _close_gaps(np.greater_equal(decayed, dtype(min_score)))
        selected += 1
        count = selected + len(order)
        rows[selected:count], index[selected:count] = rows[order], index[order]
    dets[:count] = torch.from_numpy(rows[:count]).to(dets)
    return torch.from_numpy(index[:count]).to(boxes.device)


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group every suppressed box with the box that suppressed it.

    Args:
        dets: Boxes and scores ``(N, 5)``.
        iou_threshold: Overlap from which a box joins the group of a better one.

    Returns:
        A list of indices for each kept box, itself first, each list in the order of the scores.
    """
    rows = dets.float().numpy(force=True)
    waiting = np.argsort(-rows[:, 4], kind="stable")
    groups = []
    while len(waiting):
        best, others = waiting[0], waiting[1:]
        joins = _iou(rows[best], rows[others], 0) >= np.float32(iou_threshold)
        groups.append([int(best), *others[joins].tolist()])
        waiting = others[~joins]
    return groups


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Fill ``ious`` with the overlap of every pair, or of aligned pairs.

    Args:
        bboxes1: ``(M, 4)``.
        bboxes2: ``(N, 4)``; ``(M, 4)`` when aligned.
        ious: Output ``(M, N)``; ``(M,)`` when aligned.
        mode: 0 intersection over union, 1 intersection over the area of the first box.
        aligned: Whether row i is compared with row i only.
        offset: 0 or 1, added to every width and height.
    """
    from mmcv.ops.bbox import _bbox_overlaps_cpu  # plain tensor arithmetic, for any device

    ious.copy_(_bbox_overlaps_cpu(bboxes1, bboxes2, "iof" if mode else "iou", aligned, offset))


def _iou(box: np.ndarray, others: np.ndarray, offset: int) -> np.ndarray:
    size = np.minimum(box[2:4], others[:, 2:4]) - np.maximum(box[:2], others[:, :2]) + offset
    intersection = size.clip(min=0).prod(axis=1)
    area = (box[2:4] - box[:2] + offset).prod()
    union = area + (others[:, 2:4] - others[:, :2] + offset).prod(axis=1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union != 0)


def _close_gaps(alive: np.ndarray) -> np.ndarray:
    """Positions of the living after each dead one was replaced by the last of the list."""
    kept = int(alive.sum())
    order = np.arange(kept)
    order[~alive[:kept]] = kept + np.flatnonzero(alive[kept:])[::-1]
    return order
