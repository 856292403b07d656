"""Tokens to experts and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mtadapt.models.moe import _blocked


class Dispatch(NamedTuple):
    """Rows, that is pairs of a token and one of its picks, in the order of the experts.

    Attributes:
        tokens: ``(T * k,)`` int64, token of each row.
        order: ``(T * k,)`` int64, pair of each row: its token times k plus the number of the pick.
        inverse: ``(T, k)`` int64, row of each pair.
        counts: ``(E,)`` int64, rows of each expert.
    """

    tokens: Tensor
    order: Tensor
    inverse: Tensor
    counts: Tensor


def sort_by_expert(picks: Tensor, num_experts: int) -> Dispatch:
    """Sort pairs of a token and a pick by expert, inside an expert by token."""
    flat = picks.flatten()
    order = flat.argsort(stable=True)
    counts = flat.bincount(minlength=num_experts)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=order.device)
    return Dispatch(order // max(picks.shape[1], 1), order, inverse.view(picks.shape), counts)


class _MLP(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gates: Tensor,
        tokens: Tensor,
        order: Tensor,
        inverse: Tensor,
        counts: Tensor,
        *weights: Tensor,
    ) -> Tensor:
        w1, b1, w2, b2 = weights
        y, hidden = _blocked.mlp(x, gates, Dispatch(tokens, order, inverse, counts), w1, b1, w2, b2, any(ctx.needs_input_grad))
        ctx.save_for_backward(x, gates, tokens, order, inverse, counts, w1, w2, b2, hidden)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        needs = ctx.needs_input_grad
        grads = _blocked.mlp_backward(grad, *ctx.saved_tensors[:2], Dispatch(*ctx.saved_tensors[2:6]), *ctx.saved_tensors[6:], needs[:2] + needs[6:])
        grads = [grad if need else None for grad, need in zip(grads, needs[:2] + needs[6:])]
        return (*grads[:2], None, None, None, None, *grads[2:])


def _cast(x: Tensor, *others: Tensor) -> list[Tensor]:
    if torch.is_autocast_enabled(x.device.type):
        dtype = torch.get_autocast_dtype(x.device.type)
        return [tensor.to(dtype) for tensor in (x, *others)]
    return [x, *others]


def expert_mlp(x: Tensor, gates: Tensor, dispatch: Dispatch, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """y_t = sum_j gates[t, j] * (gelu(x_t @ w1[e] + b1[e]) @ w2[e] + b2[e])."""
    x, w1, b1, w2, b2 = _cast(x, w1, b1, w2, b2)
    return _MLP.apply(x, gates, *dispatch, w1, b1, w2, b2)


def expert_project(x: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor) -> Tensor:
    """``(T, k, h)``: x_t @ w[e] + b[e]."""
    x, w, b = _cast(x, w, b)
    rows = x.index_select(0, dispatch.tokens)
    parts = [
        torch.addmm(b_e, part, w_e)
        for b_e, part, w_e in zip(b.unbind(), rows.split(dispatch.counts.tolist()), w.unbind(), strict=True)
    ]
    return torch.cat(parts)[dispatch.inverse]


def expert_combine(a: Tensor, gates: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor) -> Tensor:
    """``(T, d)``: sum_j gates[t, j] * (a[t, j] @ w[e] + b[e])."""
    a, w, b = _cast(a, w, b)
    rows = a.flatten(0, 1).index_select(0, dispatch.order)
    parts = [
        torch.addmm(b_e, part, w_e)
        for b_e, part, w_e in zip(b.unbind(), rows.split(dispatch.counts.tolist()), w.unbind(), strict=True)
    ]
    return (torch.cat(parts)[dispatch.inverse] * gates.to(a.dtype).unsqueeze(-1)).sum(1)
