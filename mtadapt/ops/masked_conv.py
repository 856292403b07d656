"""The two steps of mmcv's masked convolution, which convolves at chosen positions only."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Fill ``col`` with the window of each chosen position.

    Args:
        im: Features ``(1, C, H, W)``.
        mask_h_idx: Rows of the K positions ``(K,)`` int64.
        mask_w_idx: Columns of the positions.
        col: Output ``(C * kernel_h * kernel_w, K)``.
        kernel_h: Window height.
        kernel_w: Window width.
        pad_h: Rows of zeros above the features.
        pad_w: Columns of zeros left of them.
    """
    padded = F.pad(im[0], (pad_w, kernel_w - 1, pad_h, kernel_h - 1))  # a window never leaves the padded map
    y = mask_h_idx + torch.arange(kernel_h, device=im.device)[:, None, None]
    x = mask_w_idx + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, y, x].reshape(col.shape))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Write the column of each chosen position into ``im``.

    Args:
        col: ``(channels, K)``.
        mask_h_idx: Rows of the K positions ``(K,)`` int64.
        mask_w_idx: Columns of the positions.
        im: Output ``(1, channels, height, width)``; other positions stay as they are.
        height: Unused, the height of ``im``.
        width: Unused, the width of ``im``.
        channels: Unused, the channels of ``im``.
    """
    im[0][:, mask_h_idx, mask_w_idx] = col.to(im)
