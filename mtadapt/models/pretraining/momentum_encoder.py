"""The slowly moving copy of the encoder that gives the keys."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class MomentumEncoder(nn.Module):
    """Moving average of a backbone and a projector: ``key = (1 - momentum) * key + momentum * query``.

    As in MoCo's code it moves in every forward pass of training, so also in each batch of an accumulation window, and
    in steps whose update is skipped.

    Its parameters get no gradients, and are entries of the state dict, so that a resumed training goes on with them.
    Buffers (running statistics of BatchNorm) are its own, from the keys that it has seen.

    Args:
        backbone: is copied.
        projector: is copied.
        momentum: share of the new value, in (0, 1], as in mmpretrain; MoCo's m is 1 - momentum.

    Reference:
        MoCo (arXiv 1911.05722), equation 2.
    """

    def __init__(self, backbone: nn.Module, projector: nn.Module, momentum: float) -> None:
        super().__init__()
        self.backbone, self.projector = deepcopy(backbone), deepcopy(projector)
        self.requires_grad_(False)
        self.momentum = momentum

    def restart(self, backbone: nn.Module, projector: nn.Module) -> None:
        """Become equal to the encoder of the queries."""
        for own, other in ((self.backbone, backbone), (self.projector, projector)):
            given = other.state_dict()
            own.load_state_dict({name: given[name] for name in own.state_dict()})

    @torch.no_grad()
    def update(self, backbone: nn.Module, projector: nn.Module) -> None:
        """Move towards the encoder of the queries."""
        # The backbone of the queries may have a mask token besides.
        new = [*_named(self.backbone, backbone), *_named(self.projector, projector)]
        own = [*self.backbone.parameters(), *self.projector.parameters()]
        get_ema_multi_avg_fn(1 - self.momentum)(own, new, None)


def _named(own: nn.Module, other: nn.Module) -> Iterable[Tensor]:
    parameters = dict(other.named_parameters())
    return (parameters[name].detach() for name, _ in own.named_parameters())
