"""Alignment of visual with textual features: pixel-text score maps against the ground truth of a task."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F


def map_alignment_loss(scores: Tensor, maps: Tensor, ignore_index: int = 255) -> Tensor:
    """Cross-entropy of the score map of a dense task.

    Args:
        scores: cosine over temperature, ``(N, K, h, w)``.
        maps: labels ``(N, H, W)`` of the padded images; each score meets the label at the centre of its cell.
        ignore_index: label that does not count.

    Returns:
        The mean over the cells that count; zero if there are none.

    Reference:
        Rao et al., DenseCLIP, CVPR 2022, section 3.4.
    """
    size = scores.shape[-2:]
    # Bytes would do for the labels, but nearest-exact interpolates floats on every device.
    labels = F.interpolate(maps[:, None].float(), size=size, mode="nearest-exact")[:, 0].long()
    total = F.cross_entropy(scores.float(), labels, ignore_index=ignore_index, reduction="sum")
    return total / (labels != ignore_index).sum().clamp(min=1)


def box_alignment_loss(
    scores: Tensor,
    instances: Sequence[InstanceData],
    ignored: Sequence[InstanceData],
    size: Sequence[int],
    img_shapes: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Sigmoid cross-entropy of the score map of a detection task with filled boxes.

    Args:
        scores: cosine over temperature, ``(N, K, h, w)``.
        instances: ``bboxes`` (xyxy in pixels of the padded image) and ``labels`` of each image.
        ignored: regions in whose cells the class of the region does not count, unless a box of it is there.
        size: height and width of the padded images.
        img_shapes: height and width of each image without its padding, whose cells do not count.

    Returns:
        The mean over cells and classes that count.

    Reference:
        Rao et al., DenseCLIP, CVPR 2022, section 3.4.
    """
    target = torch.stack([fill_boxes(boxes, scores.shape[1:], size) for boxes in instances])
    hidden = torch.stack([fill_boxes(boxes, scores.shape[1:], size) for boxes in ignored])
    counts = ~hidden | target
    if img_shapes is not None:
        y, x = cell_centres(scores.shape[-2:], size, scores.device)
        inside = [(y < height)[:, None] & (x < width) for height, width in img_shapes]
        counts = counts & torch.stack(inside)[:, None]
    loss = F.binary_cross_entropy_with_logits(scores.float(), target.float(), reduction="none")
    return (loss * counts).sum() / counts.sum().clamp(min=1)


def fill_boxes(instances: InstanceData, shape: Sequence[int], size: Sequence[int]) -> Tensor:
    """Cells of each class whose centre lies in a box of the class.

    Args:
        instances: ``bboxes`` ``(M, 4)``, xyxy in pixels, and ``labels`` ``(M,)``.
        shape: classes, rows and columns of the score map.
        size: height and width of the image that the score map covers.

    Returns:
        A boolean map ``(K, h, w)``.
    """
    boxes, labels = get_box_tensor(instances.bboxes), instances.labels
    classes, rows, columns = shape
    y, x = cell_centres((rows, columns), size, boxes.device)
    in_rows = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:4])
    in_columns = (x >= boxes[:, 0:1]) & (x < boxes[:, 2:3])
    inside = (in_rows[:, :, None] & in_columns[:, None, :]).flatten(1)
    of_class = F.one_hot(labels, classes).T
    return (of_class.float() @ inside.float() > 0).unflatten(1, (rows, columns))


def cell_centres(shape: Sequence[int], size: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Centres of the rows and of the columns of a map that covers an image, in pixels.

    A level that was rounded up, as P6 of images that its stride does not divide, is taken to cover the image exactly;
    its centres are then off by up to half a cell.

    Args:
        shape: rows and columns of the map.
        size: height and width of the image.
        device: where the centres are to be.
    """
    y, x = (
        (torch.arange(cells, device=device) + 0.5) * (side / cells) for cells, side in zip(shape, size, strict=True)
    )
    return y, x
