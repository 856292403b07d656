"""A residual bottleneck on feature maps that starts as the identity."""

from __future__ import annotations

from mmcv.cnn import build_activation_layer, build_norm_layer
from mmengine.model import BaseModule
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS

CONVS = ("dense", "depthwise")


@MODELS.register_module()
class BottleneckAdapter(BaseModule):
    """``x + up(act(conv(act(down(x)))))`` with 1x1 convolutions around a 3x3 one.

    ``up`` starts at zero, so the first output equals the input bit for bit. It is also a plugin of mmdet's and mmseg's
    ResNet: ``plugins=[dict(cfg=dict(type='mtadapt.BottleneckAdapter'), stages=(False, True, True, True),
    position='after_conv3')]``. There ``frozen_stages`` freezes the adapters of those stages as well; leave these
    stages out with ``stages``.

    Ours: the 3x3 convolution, where the adapters of language models have none, and the start of the other weights
    (Kaiming, normal).

    Args:
        in_channels: channels of the map.
        ratio: the hidden width is ``in_channels // ratio``.
        conv: ``dense`` or ``depthwise``, the kind of the 3x3 convolution.
        norm_cfg: a normalisation after ``down`` and after the 3x3 convolution; None for none.
        act_cfg: the activation, e.g. ``dict(type='GELU')``.

    Raises:
        MTAdaptError: for a ratio that leaves no channel, an unknown ``conv``, or a norm that does not fit the width.

    Reference:
        Houlsby et al., Parameter-Efficient Transfer Learning for NLP, 2019; CLIP-Adapter, 2021 (bottleneck C/4).
    """

    _abbr_ = "adapter"
    is_adapter = True

    def __init__(
        self,
        in_channels: int,
        ratio: int = 4,
        conv: str = "dense",
        norm_cfg: dict | None = None,
        act_cfg: dict | None = None,
    ) -> None:
        super().__init__()
        if conv not in CONVS:
            raise MTAdaptError(f"BottleneckAdapter: conv={conv!r} is unknown; use 'dense' or 'depthwise'")
        hidden = hidden_width("BottleneckAdapter", in_channels, ratio)
        act_cfg = act_cfg or dict(type="ReLU")
        bias = norm_cfg is None
        self.down = nn.Conv2d(in_channels, hidden, 1, bias=bias)
        self.norm1 = _norm(norm_cfg, hidden)
        groups = hidden if conv == "depthwise" else 1
        self.conv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups, bias=bias)
        self.norm2 = _norm(norm_cfg, hidden)
        self.act = build_activation_layer(act_cfg)
        self.up = nn.Conv2d(hidden, in_channels, 1)
        self._reset()

    def _reset(self) -> None:
        for conv in (self.down, self.conv):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        nn.init.zeros_(self.up.weight)
        assert self.up.bias is not None
        nn.init.zeros_(self.up.bias)

    def init_weights(self) -> None:
        """Set the weights of the start again, which an enclosing module's ``init_cfg`` may have overwritten."""
        if not self.is_init:
            self._reset()
        super().init_weights()

    def forward(self, feat: Tensor) -> Tensor:
        """Adapt a map.

        Args:
            feat: ``(N, C, H, W)``.

        Returns:
            A map of the same shape.
        """
        hidden = self.act(self.norm1(self.down(feat)))
        return feat + self.up(self.act(self.norm2(self.conv(hidden))))


def hidden_width(name: str, channels: int, ratio: int) -> int:
    """Width of a bottleneck.

    Args:
        name: the adapter's name, for the message.
        channels: width of its input.
        ratio: ``channels // ratio`` is the width inside.

    Raises:
        MTAdaptError: when that is no positive number.
    """
    if not isinstance(ratio, int) or not 1 <= ratio <= channels:
        raise MTAdaptError(f"{name}: ratio={ratio} leaves no bottleneck of {channels} channels; use 1 to {channels}")
    return channels // ratio


def _norm(cfg: dict | None, channels: int) -> nn.Module:
    if cfg is None:
        return nn.Identity()
    try:
        return build_norm_layer(cfg, channels)[1]
    except ValueError as error:
        raise MTAdaptError(
            f"BottleneckAdapter: norm_cfg={dict(cfg)} does not fit {channels} channels: {error}"
        ) from None
