"""Layers that compute a size in Python, replaced by ones that a graph can follow for every size."""

from __future__ import annotations

from typing import Any

import torch
from mmseg.models.utils import Upsample
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F


class ConstantSameConv2d(nn.Module):
    """timm's ``Conv2dSame`` for maps whose sides are multiples of its stride, where the padding is always the same.

    Args:
        conv: the layer, whose parameters are shared.
    """

    def __init__(self, conv: Conv2dSame) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.stride, self.dilation, self.groups = conv.stride, conv.dilation, conv.groups
        self.padding: list[int] = []
        for kernel, stride, dilation in reversed(
            [*zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)]
        ):  # of the last side first, as F.pad wants it
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            self.padding += [total // 2, total - total // 2]

    def forward(self, features: Tensor) -> Tensor:
        """Convolve ``(N, C, H, W)``."""
        padded = F.pad(features, self.padding)
        return torch.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class IntegerUpsample(nn.Module):
    """mmseg's ``Upsample`` by a whole number, without its way through floating point.

    Args:
        layer: with a ``scale_factor``.
    """

    def __init__(self, layer: Upsample) -> None:
        super().__init__()
        self.factor, self.mode, self.align_corners = int(layer.scale_factor), layer.mode, layer.align_corners

    def forward(self, features: Tensor) -> Tensor:
        """Enlarge ``(N, C, H, W)``."""
        size = [side * self.factor for side in features.shape[-2:]]
        return F.interpolate(features, size, mode=self.mode, align_corners=self.align_corners)


class AdaptivePooling(nn.Module):
    """``AdaptiveAvgPool2d`` as two products with matrices, which are made of the size of the map.

    The exporter would write the windows of the map that it traces, and so give other means for every other size.

    Args:
        layer: with an ``output_size``.
    """

    def __init__(self, layer: nn.AdaptiveAvgPool2d) -> None:
        super().__init__()
        size: Any = layer.output_size
        self.rows: int | None
        self.columns: int | None
        self.rows, self.columns = (size, size) if isinstance(size, int) else size

    def forward(self, features: Tensor) -> Tensor:
        """Pool ``(N, C, H, W)``."""
        height, width = features.shape[-2:]
        if self.rows is not None:
            features = _windows(height, self.rows, features) @ features
        return features if self.columns is None else features @ _windows(width, self.columns, features).T


def _windows(side: int, count: int, like: Tensor) -> Tensor:
    """Weights ``(count, side)`` of the means of PyTorch's windows, from ``i * side / count`` to that of the next."""
    number = torch.arange(count, device=like.device)[:, None]
    start, end = number * side // count, ((number + 1) * side + count - 1) // count
    place = torch.arange(side, device=like.device)
    return ((place >= start) & (place < end)).to(like) / (end - start).to(like)


def replace_layers(model: nn.Module, divisor: int) -> None:
    """Replace what would fix the size of the images in a graph.

    Args:
        model: is changed.
        divisor: of the sides of its inputs. timm's ``Conv2dSame`` is replaced where it is a multiple of 32, the stride
            of the usual backbones.
    """
    for module in [*model.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, Conv2dSame) and divisor % 32 == 0:
                setattr(module, name, ConstantSameConv2d(child))
            elif isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                setattr(module, name, AdaptivePooling(child))
            elif isinstance(child, Upsample) and not child.size and child.scale_factor == int(child.scale_factor):
                setattr(module, name, IntegerUpsample(child))
