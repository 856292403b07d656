"""From tokens to the experts that they picked, and back.

Rows are pairs of a token and one of its k picks, in the order of the experts: no token is dropped, and nothing of the
size tokens x experts x width is made. The layers are operators of torch (``_operators.py``): ``torch.compile`` takes
them as they are, ``FlopCounterMode`` counts the products of the picked experts, and autograd saves their inputs and,
for the MLP, what goes into GELU. They are deterministic. A second derivative is not there.

A CPU goes through the experts in blocks of rows (``_blocked.py``). A GPU takes all rows at once (``_rows.py``): it
multiplies by ``grouped_mm``, without waiting for the host, in bfloat16 with widths that are multiples of 8, and
otherwise in a loop over the experts.

Shapes: T tokens, k picks, E experts; d, f and h are widths.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mtadapt.models.moe._operators import (
    Dispatch,
    combine_operator,
    mlp_operator,
    project_operator,
    sort_operator,
)

__all__ = ["Dispatch", "expert_combine", "expert_mlp", "expert_project", "sort_by_expert"]


def sort_by_expert(picks: Tensor, num_experts: int) -> Dispatch:
    """Sort the pairs of a token and a pick by expert, inside an expert by token.

    Args:
        picks: ``(T, k)`` int64 numbers of the picked experts, different ones in a row.
        num_experts: E.
    """
    return Dispatch(*sort_operator(picks, num_experts))


def expert_mlp(x: Tensor, gates: Tensor, dispatch: Dispatch, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """The sum over the picks of a token of ``gate * (GELU(x @ w1[e] + b1[e]) @ w2[e] + b2[e])``.

    Under autocast all but the gates are cast first, as in :class:`torch.nn.Linear`.

    Args:
        x: ``(T, d)``.
        gates: ``(T, k)``.
        dispatch: of the picks.
        w1: ``(E, d, f)``.
        b1: ``(E, f)``.
        w2: ``(E, f, d')``.
        b2: ``(E, d')``.

    Returns:
        ``(T, d')``.
    """
    x, w1, b1, w2, b2 = _autocast(x, w1, b1, w2, b2)
    save = torch.is_grad_enabled() and any(each.requires_grad for each in (x, gates, w1, b1, w2, b2))
    return mlp_operator(x, gates, *dispatch, w1, b1, w2, b2, save)[0]


def expert_project(x: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor) -> Tensor:
    """``x @ w[e] + b[e]`` for every pick of a token.

    Args:
        x: ``(T, d)``.
        dispatch: of the picks.
        w: ``(E, d, h)``.
        b: ``(E, h)``.

    Returns:
        ``(T, k, h)``.
    """
    x, w, b = _autocast(x, w, b)
    return project_operator(x, *dispatch, w, b)


def expert_combine(a: Tensor, gates: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor) -> Tensor:
    """The sum over the picks of a token of ``gate * (a @ w[e] + b[e])``.

    Args:
        a: ``(T, k, h)``, for every pick its own.
        gates: ``(T, k)``.
        dispatch: of the picks.
        w: ``(E, h, d)``.
        b: ``(E, d)``.

    Returns:
        ``(T, d)``.
    """
    a, w, b = _autocast(a, w, b)
    return combine_operator(a, gates, *dispatch, w, b)


def _autocast(*tensors: Tensor) -> list[Tensor]:
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    dtype = torch.get_autocast_dtype(device)
    return [tensor if tensor.dtype == torch.float64 else tensor.to(dtype) for tensor in tensors]
