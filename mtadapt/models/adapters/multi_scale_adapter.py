"""One bottleneck adapter for every level of a backbone or a neck."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.adapters.bottleneck import BottleneckAdapter
from mtadapt.registry import MODELS


@MODELS.register_module()
class MultiScaleAdapter(BaseModule):
    """Residual bottlenecks on multi-scale features, shapes kept, the identity at the start.

    It stands after a backbone (C2-C5), after a neck (P2-P6), or in a stock config as one more neck:
    ``neck=[dict(type='FPN', ...), dict(type='mtadapt.MultiScaleAdapter', in_channels=256)]``.

    Args:
        in_channels: channels of each level, or one number for all.
        num_levels: how many levels; 5 (P2-P6) by default when ``in_channels`` is one number, else its length.
        ratio: the hidden width of a level is its channels // ratio.
        conv: ``dense`` or ``depthwise``, the kind of the 3x3 convolution.
        norm_cfg: as in :class:`~mtadapt.models.BottleneckAdapter`.
        act_cfg: as in :class:`~mtadapt.models.BottleneckAdapter`.
        init_cfg: as in :class:`mmengine.model.BaseModule`; of use to load trained adapters.

    Raises:
        MTAdaptError: when ``in_channels`` and ``num_levels`` differ, or a bottleneck is not possible.

    Reference:
        Effective Adaptation in Multi-Task Co-Training for Unified Autonomous Driving, 2022 (arXiv 2209.08953).
        Ours: the form of the adapters.
    """

    is_adapter = True

    def __init__(
        self,
        in_channels: int | Sequence[int],
        num_levels: int | None = None,
        ratio: int = 4,
        conv: str = "depthwise",
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if isinstance(in_channels, int):
            in_channels = [in_channels] * (5 if num_levels is None else num_levels)
        self.in_channels = tuple(in_channels)
        if not self.in_channels or num_levels not in (None, len(self.in_channels)):
            raise MTAdaptError(
                f"MultiScaleAdapter: in_channels={list(self.in_channels)} has {len(self.in_channels)} levels, "
                f"num_levels={num_levels}; give one number of channels for each level"
            )
        self.levels = ModuleList(
            [BottleneckAdapter(channels, ratio, conv, norm_cfg, act_cfg) for channels in self.in_channels]
        )

    def forward(self, feats: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Adapt every level.

        Args:
            feats: maps ``(N, C, H, W)``, finest first.

        Returns:
            As many maps of the same shapes.

        Raises:
            MTAdaptError: when the number of levels or their channels are not those of ``in_channels``.
        """
        channels = tuple(feat.shape[1] for feat in feats)
        if channels != self.in_channels:
            raise MTAdaptError(
                f"MultiScaleAdapter: in_channels={list(self.in_channels)} ({len(self.in_channels)} levels), but the "
                f"features have {list(channels)} ({len(channels)} levels); correct in_channels"
            )
        return tuple(adapter(feat) for adapter, feat in zip(self.levels, feats, strict=True))
