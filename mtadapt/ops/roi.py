"""RoIAlign by torchvision and RoIPool by tensor operations.

A RoI is ``(batch index, x1, y1, x2, y2)`` in image pixels; ``spatial_scale`` turns pixels into feature cells.
"""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor

from mtadapt.ops.precision import computed

MAX_POOLING, AVERAGE_POOLING = 0, 1


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` with the mean of bilinear samples in each bin of each RoI.

    Args:
        input: Features ``(B, C, H, W)``.
        rois: ``(N, 5)``.
        output: Output ``(N, C, aligned_height, aligned_width)``.
        argmax_y: Unused, of max pooling.
        argmax_x: Unused, of max pooling.
        aligned_height: Bins along y.
        aligned_width: Bins along x.
        spatial_scale: Feature cells per pixel.
        sampling_ratio: Samples per bin and axis; 0 takes as many as the bin has cells.
        pool_mode: 1, average.
        aligned: Whether coordinates are shifted by half a cell.

    Raises:
        RuntimeError: With ``pool_mode`` 0, which torchvision does not have.
    """
    _require_average(pool_mode)
    features = computed(input)
    boxes = _without_negative_size(computed(rois, like=input), sampling_ratio)
    output.copy_(
        torchvision.ops.roi_align(
            features, boxes, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Add the gradient of :func:`roi_align_forward` to ``grad_input``; the arguments are the same."""
    _require_average(pool_mode)
    boxes = _without_negative_size(computed(rois, like=grad_output), sampling_ratio)
    grad_input += torch.ops.torchvision._roi_align_backward(
        computed(grad_output),
        boxes,
        spatial_scale,
        aligned_height,
        aligned_width,
        *grad_input.shape,
        sampling_ratio,
        aligned,
    )


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill ``output`` with the maximum of the cells that each bin of each RoI touches.

    mmcv's bins end at ``(x2 + 1) * spatial_scale`` and are not rounded first, unlike torchvision's, so the cells are
    gathered here, one RoI at a time. A bin without cells gives 0.

    Args:
        input: Features ``(B, C, H, W)``.
        rois: ``(N, 5)``.
        output: Output ``(N, C, pooled_height, pooled_width)``.
        argmax: Output, int32 of the same shape: the cell ``y * W + x`` that was taken, -1 where a bin has none.
        pooled_height: Bins along y.
        pooled_width: Bins along x.
        spatial_scale: Feature cells per pixel.
    """
    height, width = input.shape[2:]
    boxes = rois.to(torch.promote_types(rois.dtype, torch.float32))
    start, end = boxes[:, 1:3] * spatial_scale, (boxes[:, 3:5] + 1) * spatial_scale
    has_area = (end > start).all(dim=1)[:, None]
    columns = _bin_cells(start[:, 0], end[:, 0], pooled_width, width)
    rows = _bin_cells(start[:, 1], end[:, 1], pooled_height, height)
    for n, batch_index in enumerate(rois[:, 0].long().tolist()):
        (y, y_valid), (x, x_valid) = (cells[n] for cells in rows), (cells[n] for cells in columns)
        valid = y_valid[:, None, :, None] & x_valid[None, :, None, :] & has_area[n]
        cell = (y[:, None, :, None] * width + x[None, :, None, :]).flatten(2)
        values = input[batch_index].flatten(1)[:, cell].masked_fill(~valid.flatten(2), -torch.inf)
        best, which = values.max(dim=-1)
        empty = ~valid.flatten(2).any(dim=-1)
        output[n] = best.masked_fill(empty, 0)
        taken = cell.expand_as(values).gather(-1, which[..., None])[..., 0]
        argmax[n] = taken.masked_fill(empty, -1).to(argmax)


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Add the gradient of :func:`roi_pool_forward` to ``grad_input``; the arguments are the same."""
    batch, channels, height, width = grad_input.shape
    plane = rois[:, :1].long() * channels + torch.arange(channels, device=rois.device)
    target = plane[:, :, None, None] * (height * width) + argmax.clamp(min=0)
    gradient = computed(grad_output).masked_fill(argmax < 0, 0)
    total = gradient.new_zeros(batch * channels * height * width)
    grad_input += total.scatter_add_(0, target.flatten(), gradient.flatten()).view_as(grad_input)


def _require_average(pool_mode: int) -> None:
    if pool_mode != AVERAGE_POOLING:
        from mtadapt.ops.activation import not_served

        raise not_served("roi_align with pool_mode='max'")


def _without_negative_size(rois: Tensor, sampling_ratio: int) -> Tensor:
    """Give RoIs of negative size the size 0.

    With an adaptive sampling ratio mmcv's CUDA kernel takes no sample of either and returns zeros, while torchvision's
    CPU kernel fails on the negative size. With a fixed ratio both sample, mirrored, and nothing is changed.
    """
    if sampling_ratio > 0:
        return rois
    return torch.cat((rois[:, :3], torch.maximum(rois[:, 3:], rois[:, 1:3])), dim=1)


def _bin_cells(start: Tensor, end: Tensor, bins: int, size: int) -> tuple[Tensor, Tensor]:
    """Cells of each bin along one axis, ``(N, bins, longest)``, and which of them belong to it."""
    step = (end - start)[:, None] / bins
    edge = torch.arange(bins + 1, device=start.device)
    low = (edge[:-1] * step + start[:, None]).floor().long().clamp(0, size)
    high = (edge[1:] * step + start[:, None]).ceil().long().clamp(0, size)
    longest = max(int((high - low).max()), 1) if low.numel() else 1
    cells = low[..., None] + torch.arange(longest, device=start.device)
    return cells.clamp(max=size - 1), cells < high[..., None]
