"""The keys of past batches, which are negatives for the queries of the next ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError


class KeyQueue(nn.Module):
    """A ring of keys; the oldest are replaced first.

    It begins with random unit vectors, as in MoCo, and is part of the state dict. The length need not be a multiple of
    the batch: keys go on at the beginning of the ring.

    Args:
        length: number of keys.
        channels: of a key.

    Raises:
        MTAdaptError: for a length below 1.

    Reference:
        MoCo (arXiv 1911.05722), section 3.2.
    """

    keys: Tensor
    position: Tensor

    def __init__(self, length: int, channels: int) -> None:
        super().__init__()
        if length < 1:
            raise MTAdaptError(f"ContrastiveBranch: queue_len={length}; use a positive number, or 0 for no queue")
        self.register_buffer("keys", F.normalize(torch.randn(length, channels), dim=1))
        self.register_buffer("position", torch.zeros(1, dtype=torch.long))

    def snapshot(self) -> Tensor:
        """The keys ``(K, C)`` as they are now, which later calls of :meth:`put` do not change."""
        return self.keys.clone()

    @torch.no_grad()
    def put(self, keys: Tensor) -> None:
        """Add the keys ``(N, C)`` of all processes; of more than the queue holds the last ones."""
        length = len(self.keys)
        keys = torch.cat(all_gather(keys.to(self.keys.dtype)))[-length:]
        slots = (self.position + torch.arange(len(keys), device=keys.device)) % length
        self.keys[slots] = keys
        self.position.copy_((self.position + len(keys)) % length)
