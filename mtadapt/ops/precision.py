"""The precision in which the fallback computes."""

from __future__ import annotations

import torch
from torch import Tensor


def computed(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """Return ``tensor`` in the dtype that an op computes in.

    Ours: float16 and bfloat16 become float32 (torchvision's kernels lack bfloat16, and lack float16 on CPU for some
    ops; sums in float32 are also more exact), everything else stays as it is.

    Args:
        tensor: Any tensor.
        like: Take the dtype from this tensor instead, as mmcv's kernels read all inputs in the type of the first.
    """
    dtype = (tensor if like is None else like).dtype
    return tensor.to(torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype)
