"""Adapters that are put on one module of a backbone: LoRA on linear layers, bottlenecks on token sequences."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from mtadapt.errors import MTAdaptError
from mtadapt.models.adapters.bottleneck import hidden_width
from mtadapt.registry import MODELS


class InsertedAdapter(BaseModule):
    """An adapter that changes the output of another module, its target.

    A subclass takes the target as its first argument and keeps no reference to it. Its weights are bare parameters: a
    backbone's ``init_weights`` that goes over all linear layers, as that of mmdet's Swin, then leaves their start as it
    is.

    Attributes:
        needs: what the target has to be, for messages.
        used: whether the target was called since the adapter was made.
    """

    is_adapter = True
    needs = "a module"

    def __init__(self) -> None:
        super().__init__()
        self.used = False

    @classmethod
    def fits(cls, target: nn.Module, **settings: Any) -> bool:
        """Whether the adapter can be put on the target.

        Args:
            target: a module of the backbone.
            **settings: the other arguments of the adapter.
        """
        return True

    @abstractmethod
    def forward(self, inputs: tuple, output: Any) -> Any:
        """Return the adapted output of the target.

        Args:
            inputs: the positional arguments of the target.
            output: what the target returned.
        """

    def hook(self, target: nn.Module, inputs: tuple, output: Any) -> Any:
        """Forward hook of the target. A bound method, so that a copy of the backbone calls the copied adapter."""
        self.used = True
        return self(inputs, output)


@MODELS.register_module()
class LoRA(InsertedAdapter):
    """``y + alpha / rank * up(down(x))`` beside a linear layer ``y``, with ``up`` zero at the start.

    Args:
        target: the linear layer.
        rank: width between ``down`` and ``up``.
        alpha: strength; ``alpha / rank`` is the factor, so the rank can change without a new learning rate.

    Raises:
        MTAdaptError: for a rank below 1.

    Reference:
        Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021 (start of ``down`` as in its code).
    """

    needs = "a linear layer that is called"

    def __init__(self, target: nn.Linear, rank: int = 8, alpha: float = 16.0) -> None:
        super().__init__()
        if rank < 1:
            raise MTAdaptError(f"LoRA: rank={rank}; use at least 1")
        self.scale = alpha / rank
        self.down = nn.Parameter(torch.empty(rank, target.in_features))
        self.up = nn.Parameter(torch.zeros(target.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    @classmethod
    def fits(cls, target: nn.Module, **settings: Any) -> bool:
        """Any linear layer but the one whose weight :class:`torch.nn.MultiheadAttention` reads without calling it."""
        return isinstance(target, nn.Linear) and not isinstance(target, NonDynamicallyQuantizableLinear)

    def forward(self, inputs: tuple, output: Any) -> Tensor:
        """Add the low-rank term to the layer's output ``(..., out_features)``."""
        return output + self.scale * F.linear(F.linear(inputs[0], self.down), self.up)


@MODELS.register_module()
class TokenBottleneck(InsertedAdapter):
    """``y + up(gelu(down(y)))`` on the tokens ``y (B, L, C)`` that a module gives, with ``up`` zero at the start.

    On the ``ffn`` of a block, whose output holds the residual already, it follows the block; on ``attn`` of
    mmpretrain's ViT it adapts what the attention adds.

    Args:
        target: a module with ``embed_dims``, as attentions and FFNs have, or a linear layer or layer norm.
        ratio: the hidden width is ``C // ratio``.
        channels: C, for a target that does not tell it.

    Raises:
        MTAdaptError: for a ratio that leaves no channel, or a target that turns out to give no tokens of C channels.

    Reference:
        Houlsby et al., Parameter-Efficient Transfer Learning for NLP, 2019.
    """

    needs = "a module with embed_dims (or channels=C beside targets)"

    def __init__(self, target: nn.Module, ratio: int = 8, channels: int | None = None) -> None:
        super().__init__()
        channels = channels or _token_channels(target)
        assert channels is not None
        hidden = hidden_width("TokenBottleneck", channels, ratio)
        self.channels = channels
        self.down = nn.Parameter(torch.empty(hidden, channels))
        self.down_bias = nn.Parameter(torch.zeros(hidden))
        self.up = nn.Parameter(torch.zeros(channels, hidden))
        self.up_bias = nn.Parameter(torch.zeros(channels))
        nn.init.kaiming_normal_(self.down, nonlinearity="relu")

    @classmethod
    def fits(cls, target: nn.Module, **settings: Any) -> bool:
        """Any module whose width is known."""
        return bool(settings.get("channels") or _token_channels(target))

    def forward(self, inputs: tuple, output: Any) -> Tensor:
        """Adapt the tokens ``(..., C)``.

        Raises:
            MTAdaptError: when the output is no tensor of C channels in its last dimension.
        """
        if not isinstance(output, Tensor) or output.shape[-1] != self.channels:
            got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise MTAdaptError(
                f"TokenBottleneck: its target gives {got}, not tokens (..., {self.channels}); correct targets"
            )
        hidden = F.gelu(F.linear(output, self.down, self.down_bias))
        return output + F.linear(hidden, self.up, self.up_bias)


def _token_channels(target: nn.Module) -> int | None:
    if isinstance(target, nn.Linear):
        return target.out_features
    if isinstance(target, nn.LayerNorm):
        return target.normalized_shape[-1]
    channels = getattr(target, "embed_dims", None)
    return channels if isinstance(channels, int) else None
