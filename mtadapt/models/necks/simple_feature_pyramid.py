"""A feature pyramid for plain vision transformers, made from their last map alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleList
from mmpretrain.models.utils import LayerNorm2d
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS

#: Levels that are made from the map of stride 16; coarser ones are the last of these, subsampled.
_BASE_LEVELS = 4


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps of strides 4, 8, 16, 32 (and 64, 128, ...) from one map of stride 16.

    Transposed convolutions refine the map, max pooling coarsens it, and each level then has a 1x1 and a 3x3
    convolution with layer norm. Of several maps of a backbone the last one is used. In a stock config:
    ``neck=dict(type='mtadapt.SimpleFeaturePyramid', in_channels=384)``.

    Ours: a map of odd size is pooled to the size that is rounded up, so that maps of any size have all levels.

    Args:
        in_channels: channels of the map, a multiple of 4.
        out_channels: channels of every level.
        num_outs: number of levels, 1 to 4 for strides 4 to 32, more for coarser ones.
        init_cfg: as in :class:`mmengine.model.BaseModule`.

    Raises:
        MTAdaptError: for ``in_channels`` that is no multiple of 4 or ``num_outs`` below 1.

    Reference:
        Exploring Plain Vision Transformer Backbones for Object Detection, 2022 (arXiv 2203.16527).
    """

    def __init__(
        self, in_channels: int, out_channels: int = 256, num_outs: int = 5, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        if in_channels < 4 or in_channels % 4 or num_outs < 1:
            raise MTAdaptError(
                f"SimpleFeaturePyramid: in_channels={in_channels}, num_outs={num_outs}; in_channels must be a "
                "multiple of 4 and num_outs at least 1"
            )
        self.in_channels = in_channels
        self.num_outs = num_outs
        half, quarter = in_channels // 2, in_channels // 4
        scales: list[list[nn.Module]] = [
            [_upsample(in_channels, half), _norm(half), nn.GELU(), _upsample(half, quarter)],
            [_upsample(in_channels, half)],
            [],
            [nn.MaxPool2d(2, ceil_mode=True)],
        ]
        channels = [quarter, half, in_channels, in_channels]
        levels = [[*scale, *_output(width, out_channels)] for scale, width in zip(scales, channels, strict=True)]
        self.levels = ModuleList([nn.Sequential(*level) for level in levels[:num_outs]])

    def forward(self, feats: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make the levels.

        Args:
            feats: ``(N, in_channels, H, W)`` of stride 16, or several, of which the last one is used.

        Returns:
            ``num_outs`` maps ``(N, out_channels, H', W')``, finest first.

        Raises:
            MTAdaptError: for a map with another number of channels.
        """
        feat = feats if isinstance(feats, Tensor) else feats[-1]
        if feat.dim() != 4 or feat.shape[1] != self.in_channels:
            raise MTAdaptError(
                f"SimpleFeaturePyramid: in_channels={self.in_channels}, but the input has the shape "
                f"{tuple(feat.shape)}; write the backbone's channels and let it give maps (out_type='featmap')"
            )
        outs = [level(feat) for level in self.levels]
        for _ in range(self.num_outs - _BASE_LEVELS):
            outs.append(F.max_pool2d(outs[-1], kernel_size=1, stride=2))
        return tuple(outs)


def _upsample(in_channels: int, out_channels: int) -> nn.Module:
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)


def _norm(channels: int) -> nn.Module:
    return LayerNorm2d(channels, eps=1e-6)


def _output(in_channels: int, out_channels: int) -> list[nn.Module]:
    """A 1x1 and a 3x3 convolution, each with layer norm in the place of a bias."""
    return [
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        _norm(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
        _norm(out_channels),
    ]
