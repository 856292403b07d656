"""Experts one after the other, each on blocks of its rows: the kernels for CPUs, and for what grouped_mm cannot do.

The buffers of a block are made once and used again by the next one. That matters more than any other detail on a CPU:
a fresh buffer for all rows is zeroed page by page by the system, which takes ten times as long as to fill it, while a
buffer of a block stays in the cache. The number of rows is needed on the host.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mtadapt.models.moe.dispatch import Dispatch

#: Rows of a block on a CPU. Fewer make more passes over the gradients of the weights, more leave the cache.
ROWS_PER_BLOCK = 1024

gelu, gelu_, gelu_backward = torch.ops.aten.gelu.out, torch.ops.aten.gelu_, torch.ops.aten.gelu_backward.grad_input


class _Blocks:
    """Rows cut into blocks that belong to one expert each.

    Attributes:
        experts: expert of each block.
        sizes: rows of each block.
        empty: experts without rows.
    """

    def __init__(self, dispatch: Dispatch) -> None:
        counts = dispatch.counts.tolist()
        limit = ROWS_PER_BLOCK if dispatch.counts.device.type == "cpu" else max(counts)
        self.dispatch = dispatch
        self.experts: list[int] = []
        self.sizes: list[int] = []
        for expert, count in enumerate(counts):
            parts = -(-count // limit) if count else 0
            self.experts += [expert] * parts
            self.sizes += [count * (part + 1) // parts - count * part // parts for part in range(parts)]
        self.empty = [expert for expert, count in enumerate(counts) if not count]

    def walk(self, *rows: Tensor) -> Iterator[tuple]:
        """Expert, number of rows and the parts of ``rows`` of every block."""
        return zip(self.experts, self.sizes, *(each.split(self.sizes) for each in rows), strict=True)

    def buffer(self, like: Tensor, width: int) -> Tensor:
        """Memory for the largest block."""
        return like.new_empty(max(self.sizes, default=0), width)


class _Gradient:
    """Gradient of what the experts have one of each, added up block by block."""

    def __init__(self, blocks: _Blocks, like: Tensor) -> None:
        self.total = torch.empty_like(like, memory_format=torch.contiguous_format)
        self._parts = (self.total if like.dim() == 3 else self.total.unsqueeze(1)).unbind()
        self._last = -1
        for expert in blocks.empty:
            self.total[expert].zero_()

    def add(self, expert: int, left: Tensor, right: Tensor) -> None:
        """Add ``left.T @ right``."""
        part, beta = self._parts[expert], int(expert == self._last)
        torch.addmm(part, left.t(), right, beta=beta, out=part)
        self._last = expert


def mlp(
    x: Tensor, gates: Tensor, dispatch: Dispatch, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, save: bool
) -> tuple[Tensor, Tensor]:
    """Forward of :func:`~mtadapt.models.moe.dispatch.expert_mlp`.

    Returns:
        ``(T, d)``, and ``(T * k, f)`` that the backward needs: what goes into GELU; empty unless ``save``.
    """
    blocks = _Blocks(dispatch)
    y = _zeros(x, w2.shape[2])
    hidden = x.new_empty(len(dispatch.tokens) if save else 0, w1.shape[2])
    inputs, activations, outputs = (blocks.buffer(x, width) for width in (*w1.shape[1:], w2.shape[2]))
    into_gelu = hidden if save else activations.new_empty(0).expand(len(dispatch.tokens), 0)
    w1s, b1s, w2s, b2s = w1.unbind(), b1.unbind(), w2.unbind(), b2.unbind()
    for e, size, token, share, h in blocks.walk(dispatch.tokens, _shares(x, gates, dispatch), into_gelu):
        block, a, out = inputs[:size], activations[:size], outputs[:size]
        torch.index_select(x, 0, token, out=block)
        if save:
            torch.addmm(b1s[e], block, w1s[e], out=h)
            gelu(h, out=a)
        else:
            torch.addmm(b1s[e], block, w1s[e], out=a)
            gelu_(a)
        torch.addmm(b2s[e], a, w2s[e], out=out)
        y.index_add_(0, token, out.mul_(share).to(y.dtype))
    return y.to(x.dtype), hidden


def mlp_backward(
    grad: Tensor,
    x: Tensor,
    gates: Tensor,
    dispatch: Dispatch,
    w1: Tensor,
    w2: Tensor,
    b2: Tensor,
    hidden: Tensor,
    needs: Sequence[bool],
) -> list[Tensor]:
    """Gradients of x, gates, w1, b1, w2 and b2; empty where ``needs`` is false."""
    need_x, need_gates, need_w1, need_b1, need_w2, need_b2 = needs
    blocks = _Blocks(dispatch)
    dx, dgates = _zeros(x, x.shape[1]), gates.new_empty(gates.numel())
    dw1, dw2, db2 = (_Gradient(blocks, like) for like in (w1, w2, b2))
    db1 = _Gradient(blocks, w1[:, 0])
    inputs, dhs, activations, grads = (
        blocks.buffer(x, width) for width in (w1.shape[1], w1.shape[2], w1.shape[2], w2.shape[2])
    )
    w1s, w2s, b2s = w1.mT.unbind(), w2.mT.unbind(), b2.unbind()
    one = x.new_ones(1, 1)
    for e, size, token, pair, share, h in blocks.walk(dispatch.tokens, dispatch.order, _shares(x, gates, dispatch), hidden):
        block, dh, a, g = inputs[:size], dhs[:size], activations[:size], grads[:size]
        torch.index_select(grad, 0, token, out=g)
        torch.mm(g, w2s[e], out=dh)
        gelu(h, out=a)
        dgates[pair] = torch.linalg.vecdot(dh, a).addmv_(g, b2s[e]).to(gates.dtype)
        dw2.add(e, a.mul_(share), g)
        db2.add(e, share, g)
        gelu_backward(dh, h, grad_input=dh).mul_(share)
        torch.index_select(x, 0, token, out=block)
        dw1.add(e, block, dh)
        db1.add(e, one.expand(size, 1), dh)
        torch.mm(dh, w1s[e], out=block)
        dx.index_add_(0, token, block.to(dx.dtype))
    return [dx.to(x.dtype), dgates.view(gates.shape), dw1.total, db1.total, dw2.total, db2.total]


def _zeros(x: Tensor, width: int) -> Tensor:
    """Zeros for every token, to which its k rows are added; in float32 when x is less precise."""
    return x.new_zeros(len(x), width, dtype=torch.promote_types(x.dtype, torch.float32))


def _shares(x: Tensor, gates: Tensor, dispatch: Dispatch) -> Tensor:
    """Gates of the rows as a column."""
    return gates.flatten().index_select(0, dispatch.order).to(x.dtype).unsqueeze(1)
