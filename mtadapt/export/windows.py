"""Attention in windows, as Swin and DaViT have it, for graphs of any number and size of images."""

from __future__ import annotations

from typing import Any

import mmdet.models.backbones.swin as mmdet_swin
import mmseg.models.backbones.swin as mmseg_swin
import torch
from mmpretrain.models.backbones.davit import DaViTWindowMSA
from mmpretrain.models.utils.attention import ShiftWindowMSA, WindowMSA
from torch import Tensor, nn

_LAYERS = (ShiftWindowMSA, mmdet_swin.ShiftWindowMSA, mmseg_swin.ShiftWindowMSA)
_ATTENTIONS = (WindowMSA, mmdet_swin.WindowMSA, mmseg_swin.WindowMSA, DaViTWindowMSA)
#: What the stock layers add to the logits of places that the shift brought together.
_APART = -100.0


def has_windows(layer: nn.Module) -> bool:
    """Whether :class:`WindowAttention` can stand for a layer."""
    return type(layer) in _LAYERS and type(layer.w_msa) in _ATTENTIONS


class WindowAttention(nn.Module):
    """``ShiftWindowMSA`` of mmdet, mmseg and mmpretrain, in evaluation mode.

    The stock layers compute the number of images with a division in Python, and draw the mask of the shift region by
    region. Here padding and shift are one choice of rows and columns, and images and windows keep dimensions of their
    own.

    Args:
        layer: whose parameters are shared.

    Attributes:
        window: height and width of a window.
        seen: height and width of the last map whose size was in numbers.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.window, self.shift = int(layer.window_size), int(layer.shift_size)
        # mmpretrain does not shift a map of the size of a window, unless it pads small maps.
        self.shift_smallest = getattr(layer, "pad_small_map", True)
        self.seen = (self.window, self.window)
        own = layer.w_msa
        self.channels, self.heads, self.scale = int(own.embed_dims), int(own.num_heads), own.scale
        self.qkv, self.proj = own.qkv, own.proj
        self.table: Tensor | None = getattr(own, "relative_position_bias_table", None)
        self.register_buffer("positions", getattr(own, "relative_position_index", None), persistent=False)

    def forward(self, query: Tensor, hw_shape: tuple[int, int]) -> Tensor:
        """Attend inside the windows.

        Args:
            query: ``(N, H * W, C)``.
            hw_shape: H and W.

        Returns:
            ``(N, H * W, C)``.
        """
        (height, width), side, channels = hw_shape, self.window, self.channels
        images = query.shape[0]
        if isinstance(height, int) and isinstance(width, int):
            self.seen = (height, width)
        shift = self._shift_of(height, width)
        numbers = [(length + side - 1) // side for length in hw_shape]
        rows, columns = (_places(number * side, shift, query) for number in numbers)
        inside = (rows < height)[:, None] & (columns < width)
        maps = query.reshape(images, height, width, channels)
        maps = maps[:, rows.clamp(max=height - 1)][:, :, columns.clamp(max=width - 1)] * inside[..., None].to(query)
        windows = maps.reshape(images, numbers[0], side, numbers[1], side, channels).transpose(2, 3)
        windows = windows.reshape(images, numbers[0] * numbers[1], side * side, channels)
        windows = self._attend(windows, self._mask(numbers, shift, query) if self.shift else None)
        maps = windows.reshape(images, numbers[0], numbers[1], side, side, channels).transpose(2, 3)
        maps = maps.reshape(images, numbers[0] * side, numbers[1] * side, channels)
        # A place of the image stands ``shift`` further up and left.
        back = [_places(number * side, number * side - shift, query) for number in numbers]
        maps = maps[:, back[0][:height]][:, :, back[1][:width]]
        return maps.reshape(images, height * width, channels)

    def _shift_of(self, height: int, width: int) -> int | Tensor:
        if not self.shift or self.shift_smallest:
            return self.shift
        # As a tensor, so that a graph decides it for every size.
        smallest = torch.minimum(torch.full((), height), torch.full((), width))
        return torch.where(smallest > self.window, self.shift, 0)

    def _attend(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Self-attention in windows ``(N, W, n, C)``; the mask ``(W, n, n)`` is added to the logits."""
        # These two are numbers in a graph, whatever the size of the images.
        places, channels = self.window**2, self.channels
        images, number = windows.shape[:2]
        qkv = self.qkv(windows).reshape(images, number, places, 3, self.heads, channels // self.heads)
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).unbind(0)
        logits = (q * self.scale) @ k.transpose(-2, -1)
        if self.table is not None:
            positions: Any = self.positions
            bias = self.table[positions.reshape(-1)].reshape(places, places, self.heads)
            logits = logits + bias.permute(2, 0, 1)
        if mask is not None:
            logits = logits + mask[:, None]
        found = (logits.softmax(-1) @ v).transpose(2, 3).reshape(images, number, places, channels)
        return self.proj(found)

    def _mask(self, numbers: list[int], shift: int | Tensor, like: Tensor) -> Tensor:
        """``(W, n, n)``: 0 between places that are neighbours in the image, else a large negative number."""
        side = self.window
        # Of each side three regions: all but the last window, and the last one before and behind the shift.
        rows, columns = (
            (place >= number * side - side).to(like) + (place >= number * side - shift).to(like)
            for number, place in ((number, _places(number * side, 0, like)) for number in numbers)
        )
        region = 3 * rows[:, None] + columns
        region = region.reshape(numbers[0], side, numbers[1], side).transpose(1, 2)
        region = region.reshape(numbers[0] * numbers[1], side * side)
        return (region[:, None] != region[:, :, None]).to(like) * _APART


def _places(length: int, first: int | Tensor, like: Tensor) -> Tensor:
    """``(length,)``: the numbers from ``first`` on, around the end; ``first`` is at most ``length``."""
    places = torch.arange(length, device=like.device) + first
    # The exporter has no remainder by a free dimension.
    return torch.where(places < length, places, places - length)
