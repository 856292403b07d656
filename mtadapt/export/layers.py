"""Layers that compute a size in Python, replaced by ones that a graph can follow for every size."""

from __future__ import annotations

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
            elif isinstance(child, Upsample) and not child.size and child.scale_factor == int(child.scale_factor):
                setattr(module, name, IntegerUpsample(child))
