"""Layers that compute a size in Python, replaced by ones that a graph can follow for every size."""

from __future__ import annotations

from typing import Any

import torch
from mmcv.cnn.bricks.transformer import AdaptivePadding as MMCVAdaptivePadding
from mmdet.models.layers.transformer.utils import AdaptivePadding as MMDetAdaptivePadding
from mmseg.models.utils import Upsample
from mmseg.models.utils.embed import AdaptivePadding as MMSegAdaptivePadding
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from mtadapt.export.windows import WindowAttention, has_windows

#: The largest of the usual backbones.
_STRIDE = 32
_ADAPTIVE_PADDINGS = (MMCVAdaptivePadding, MMDetAdaptivePadding, MMSegAdaptivePadding)


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


class ConstantPadding(nn.Module):
    """OpenMMLab's ``AdaptivePadding`` for maps whose sides are multiples of its stride, where it is always the same.

    Args:
        layer: with a ``kernel_size``, ``stride`` and ``dilation``.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.padding: list[int] = []
        for kernel, stride, dilation in reversed([*zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)]):
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            before = total // 2 if layer.padding == "same" else 0
            self.padding += [before, total - before]

    def forward(self, features: Tensor) -> Tensor:
        """Pad ``(N, C, H, W)``."""
        return F.pad(features, self.padding) if any(self.padding) else features


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


def replace_layers(model: nn.Module, divisor: int) -> int:
    """Replace what would fix the size of the images in a graph.

    Args:
        model: is changed.
        divisor: of the sides of its inputs. What pads maps by their size is replaced where it is a multiple of 32, the
            stride of the usual backbones.

    Returns:
        The smallest side of images, in pixels, that shows the tracer what a graph for every size has to do: one that is
        no special case anywhere, as a map of a single window is.
    """
    smallest = 2 * divisor + 2
    for module in [*model.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, Conv2dSame) and divisor % _STRIDE == 0:
                setattr(module, name, ConstantSameConv2d(child))
            elif isinstance(child, _ADAPTIVE_PADDINGS) and divisor % _STRIDE == 0:
                setattr(module, name, ConstantPadding(child))
            elif has_windows(child):
                replaced = WindowAttention(child)
                setattr(module, name, replaced)
                smallest = max(smallest, (replaced.window + 1) * _STRIDE)
            elif isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                setattr(module, name, AdaptivePooling(child))
            elif isinstance(child, Upsample) and not child.size and child.scale_factor == int(child.scale_factor):
                setattr(module, name, IntegerUpsample(child))
    return smallest
