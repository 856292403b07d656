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

_ADAPTIVE_PADDINGS = (MMCVAdaptivePadding, MMDetAdaptivePadding, MMSegAdaptivePadding)


class _ConstantPadding(nn.Module):
    """A layer that pads by the size of a map, where its stride divides the sides and the padding is always the same.

    Args:
        layer: whose parameters are shared.
        same: whether half of the padding is at the top and the left.

    Attributes:
        fits: false once a map was seen whose sides the stride does not divide. As long as sides are numbers, such a map
            goes through the stock layer.
    """

    def __init__(self, layer: Any, same: bool = True) -> None:
        super().__init__()
        self.layer, self.fits = layer, True
        self.padding: list[int] = []
        for kernel, stride, dilation in reversed(
            [*zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)]
        ):  # of the last side first, as F.pad wants it
            total = max((kernel - 1) * dilation + 1 - stride, 0)
            before = total // 2 if same else 0
            self.padding += [before, total - before]

    def forward(self, features: Tensor) -> Tensor:
        """Pad ``(N, C, H, W)``, and do what else the layer does."""
        layer: Any = self.layer
        sides = zip(features.shape[-2:], layer.stride, strict=True)
        if any(isinstance(side, int) and side % stride for side, stride in sides):
            self.fits = False
            return layer(features)
        return self._after(F.pad(features, self.padding) if any(self.padding) else features)

    def _after(self, padded: Tensor) -> Tensor:
        return padded


class ConstantSameConv2d(_ConstantPadding):
    """timm's ``Conv2dSame``."""

    def _after(self, padded: Tensor) -> Tensor:
        conv: Any = self.layer
        return torch.conv2d(padded, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


class ConstantPadding(_ConstantPadding):
    """OpenMMLab's ``AdaptivePadding``."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer, same=layer.padding == "same")


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


def replace_layers(model: nn.Module) -> None:
    """Replace what would fix the size of the images in a graph, in place."""
    for module in [*model.modules()]:
        for name, child in [*module.named_children()]:
            if isinstance(child, Conv2dSame):
                setattr(module, name, ConstantSameConv2d(child))
            elif isinstance(child, _ADAPTIVE_PADDINGS):
                setattr(module, name, ConstantPadding(child))
            elif has_windows(child):
                setattr(module, name, WindowAttention(child))
            elif isinstance(child, nn.AdaptiveAvgPool2d) and child.output_size not in (1, (1, 1)):
                setattr(module, name, AdaptivePooling(child))
            elif isinstance(child, Upsample) and not child.size and child.scale_factor == int(child.scale_factor):
                setattr(module, name, IntegerUpsample(child))


def unfit_layers(model: nn.Module) -> list[str]:
    """Stock layers that pad by the size of a map and have seen one whose sides their stride does not divide."""
    unfit = [module for module in model.modules() if isinstance(module, _ConstantPadding) and not module.fits]
    return sorted({type(module.layer).__name__ for module in unfit})
