"""Experts one after the other, each on blocks of its rows: the kernels for a CPU.

What a block needs is made once and used again by the next block. On a CPU that matters more than any other detail: the
system zeroes a large fresh buffer page by page, which takes ten times as long as to fill it, while the buffers of a
block stay in the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from mtadapt.models.moe._operators import Dispatch

#: Rows of a block. With fewer the gradients of the weights are read and written more often, more leave the cache.
ROWS_PER_BLOCK = 2048


class _Blocks:
    """Rows cut into blocks of one expert each.

    Args:
        dispatch: of the rows.
        dtype: of the matrix products.
    """

    def __init__(self, dispatch: Dispatch, dtype: torch.dtype) -> None:
        counts = dispatch.counts.tolist()
        # Below float32 the products are oneDNN's, which compiles a kernel for every new size: then only a few sizes.
        units = (ROWS_PER_BLOCK, 1) if dtype in (torch.float32, torch.float64) else (ROWS_PER_BLOCK, 256, 32, 1)
        self.experts: list[int] = []
        self.sizes: list[int] = []
        for expert, count in enumerate(counts):
            sizes = _cut(count, units)
            self.experts += [expert] * len(sizes)
            self.sizes += sizes
        self.unused = [expert for expert, count in enumerate(counts) if not count]

    def split(self, rows: Tensor) -> Sequence[Tensor]:
        """Part of every block in what all rows have."""
        return rows.split(self.sizes)

    def share(self, memory: Tensor) -> Sequence[Tensor]:
        """Part of every block in memory that all blocks use, see :meth:`buffer`."""
        return [memory[:size] for size in self.sizes]

    def buffer(self, like: Tensor, width: int) -> Sequence[Tensor]:
        """Uninitialised ``(rows, width)`` for every block, all in the same memory."""
        return self.share(like.new_empty(max(self.sizes, default=0), width))


def _cut(count: int, units: Sequence[int]) -> list[int]:
    """Sizes of blocks: as many as possible of the first unit, then one that is a multiple of the second, and so on."""
    sizes = [units[0]] * (count // units[0])
    for last, unit in pairwise(units):
        sizes.append(count % last // unit * unit)
    return [size for size in sizes if size]


class _TokenSum:
    """``(T, width)`` sums over the k rows of every token, in float32 at least, so that k terms are rounded once.

    Args:
        blocks: blocks of the rows.
        like: ``(T, any)``.
        width: of a row.

    Attributes:
        parts: where a block may put its rows before :meth:`add`.
    """

    def __init__(self, blocks: _Blocks, like: Tensor, width: int) -> None:
        self.parts = blocks.buffer(like, width)
        self._sum = like.new_zeros(len(like), width, dtype=torch.promote_types(like.dtype, torch.float32))
        self._dtype = like.dtype

    def add(self, tokens: Tensor, rows: Tensor) -> None:
        """Add rows of different tokens."""
        self._sum.index_add_(0, tokens, rows.to(self._sum.dtype))

    def total(self) -> Tensor:
        """The sums, when all blocks were added."""
        return self._sum.to(self._dtype)


class _Gradient:
    """Gradient of a stack of weights or biases, zero for experts without rows; empty if it is not needed."""

    def __init__(self, blocks: _Blocks, like: Tensor, needed: bool) -> None:
        self.total = like.new_empty(like.shape if needed else 0)
        self._needed = needed
        self._last = -1
        if needed:
            self._parts = (self.total if like.dim() == 3 else self.total.unsqueeze(1)).unbind()
            for expert in blocks.unused:
                self.total[expert].zero_()

    def add(self, expert: int, left: Tensor, right: Tensor) -> None:
        """Add ``left.T @ right`` of a block."""
        if self._needed:
            part = self._parts[expert]
            torch.addmm(part, left.t(), right, beta=int(expert == self._last), out=part)
            self._last = expert


def _shares(gates: Tensor, dispatch: Dispatch, dtype: torch.dtype) -> Tensor:
    """Gates of the rows as a column."""
    return gates.flatten().index_select(0, dispatch.order).to(dtype).unsqueeze(1)


def _gelu(h: Tensor, out: Tensor) -> None:
    # Transposed tensors keep torch from oneDNN, which compiles a kernel for every new number of rows.
    torch.ops.aten.gelu.out(h.t(), out=out.t())


def _gelu_backward(grad: Tensor, h: Tensor) -> None:
    torch.ops.aten.gelu_backward.grad_input(grad.t(), h.t(), grad_input=grad.t())


def mlp(
    x: Tensor, gates: Tensor, dispatch: Dispatch, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, save: bool
) -> tuple[Tensor, Tensor]:
    """Forward of :func:`~mtadapt.models.moe.dispatch.expert_mlp`.

    Returns:
        ``(T, d')``, and the inputs of GELU ``(T * k, f)`` for the backward, empty unless ``save``.
    """
    blocks = _Blocks(dispatch, x.dtype)
    y = _TokenSum(blocks, x, w2.shape[2])
    hidden = x.new_empty(len(dispatch.tokens) if save else 0, w1.shape[2])
    inputs, activations = blocks.buffer(x, w1.shape[1]), blocks.buffer(x, w1.shape[2])
    into_gelu = blocks.split(hidden) if save else activations
    tokens, shares = blocks.split(dispatch.tokens), blocks.split(_shares(gates, dispatch, x.dtype))
    w1s, b1s, w2s, b2s = w1.unbind(), b1.unbind(), w2.unbind(), b2.unbind()
    for i, e in enumerate(blocks.experts):
        block, h, a, out = inputs[i], into_gelu[i], activations[i], y.parts[i]
        torch.index_select(x, 0, tokens[i], out=block)
        torch.addmm(b1s[e], block, w1s[e], out=h)
        _gelu(h, out=a)
        torch.addmm(b2s[e], a, w2s[e], out=out)
        y.add(tokens[i], out.mul_(shares[i]))
    return y.total(), hidden


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
    """Gradients of x, gates, w1, b1, w2 and b2, each empty where ``needs`` is false."""
    need_x, need_gates, need_w1, need_b1, need_w2, need_b2 = needs
    blocks = _Blocks(dispatch, x.dtype)
    dx = _TokenSum(blocks, x, w1.shape[1] if need_x else 0)
    dw1, db1 = _Gradient(blocks, w1, need_w1), _Gradient(blocks, w1[:, 0], need_b1)
    dw2, db2 = _Gradient(blocks, w2, need_w2), _Gradient(blocks, b2, need_b2)
    dshares, row_shares = x.new_empty(len(dispatch.tokens)), _shares(gates, dispatch, x.dtype)
    tokens, shares, dshare_parts, into_gelu = map(blocks.split, (dispatch.tokens, row_shares, dshares, hidden))
    inputs, grads = blocks.buffer(x, w1.shape[1]), blocks.buffer(x, w2.shape[2])
    activations, dhs = blocks.buffer(x, w1.shape[2]), blocks.buffer(x, w1.shape[2])
    ones = blocks.share(x.new_ones(max(blocks.sizes, default=0), 1))
    w1s, w2s, b2s = w1.mT.unbind(), w2.mT.unbind(), b2.unbind()
    for i, e in enumerate(blocks.experts):
        block, g, a, dh, h = inputs[i], grads[i], activations[i], dhs[i], into_gelu[i]
        torch.index_select(grad, 0, tokens[i], out=g)
        db2.add(e, shares[i], g)
        if need_gates or need_w2:
            _gelu(h, out=a)
        if need_gates or need_x or need_w1 or need_b1:
            torch.mm(g, w2s[e], out=dh)
        if need_gates:
            torch.linalg.vecdot(dh, a, out=dshare_parts[i]).addmv_(g, b2s[e])
        if need_w2:
            dw2.add(e, a.mul_(shares[i]), g)
        if need_x or need_w1 or need_b1:
            _gelu_backward(dh, h)
            dh.mul_(shares[i])
            db1.add(e, ones[i], dh)
        if need_w1:
            torch.index_select(x, 0, tokens[i], out=block)
            dw1.add(e, block, dh)
        if need_x:
            torch.mm(dh, w1s[e], out=dx.parts[i])
            dx.add(tokens[i], dx.parts[i])
    dgates = dshares[dispatch.inverse].to(gates.dtype) if need_gates else gates.new_empty(0)
    return [dx.total() if need_x else x.new_empty(0), dgates, dw1.total, db1.total, dw2.total, db2.total]


def project(x: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor) -> Tensor:
    """Forward of :func:`~mtadapt.models.moe.dispatch.expert_project`: ``(T, k, h)``."""
    blocks = _Blocks(dispatch, x.dtype)
    out = x.new_empty(len(dispatch.order), w.shape[2])
    inputs, outputs = blocks.buffer(x, w.shape[1]), blocks.buffer(x, w.shape[2])
    tokens, pairs = blocks.split(dispatch.tokens), blocks.split(dispatch.order)
    ws, bs = w.unbind(), b.unbind()
    for i, e in enumerate(blocks.experts):
        torch.index_select(x, 0, tokens[i], out=inputs[i])
        torch.addmm(bs[e], inputs[i], ws[e], out=outputs[i])
        out.index_copy_(0, pairs[i], outputs[i])
    return out.view(*dispatch.inverse.shape, w.shape[2])


def project_backward(grad: Tensor, x: Tensor, dispatch: Dispatch, w: Tensor, needs: Sequence[bool]) -> list[Tensor]:
    """Gradients of x, w and b, each empty where ``needs`` is false."""
    need_x, need_w, need_b = needs
    blocks = _Blocks(dispatch, x.dtype)
    dx = _TokenSum(blocks, x, w.shape[1] if need_x else 0)
    dw, db = _Gradient(blocks, w, need_w), _Gradient(blocks, w[:, 0], need_b)
    pair_grads, inputs, grads = grad.flatten(0, 1), blocks.buffer(x, w.shape[1]), blocks.buffer(x, w.shape[2])
    tokens, pairs = blocks.split(dispatch.tokens), blocks.split(dispatch.order)
    ones = blocks.share(x.new_ones(max(blocks.sizes, default=0), 1))
    ws = w.mT.unbind()
    for i, e in enumerate(blocks.experts):
        g = torch.index_select(pair_grads, 0, pairs[i], out=grads[i])
        db.add(e, ones[i], g)
        if need_w:
            dw.add(e, torch.index_select(x, 0, tokens[i], out=inputs[i]), g)
        if need_x:
            dx.add(tokens[i], torch.mm(g, ws[e], out=dx.parts[i]))
    return [dx.total() if need_x else x.new_empty(0), dw.total, db.total]


def combine(a: Tensor, gates: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor) -> Tensor:
    """Forward of :func:`~mtadapt.models.moe.dispatch.expert_combine`: ``(T, d)``."""
    blocks = _Blocks(dispatch, a.dtype)
    y = _TokenSum(blocks, a, w.shape[2])
    pair_inputs, inputs = a.flatten(0, 1), blocks.buffer(a, w.shape[1])
    row_shares = _shares(gates, dispatch, a.dtype)
    tokens, pairs, shares = map(blocks.split, (dispatch.tokens, dispatch.order, row_shares))
    ws, bs = w.unbind(), b.unbind()
    for i, e in enumerate(blocks.experts):
        torch.index_select(pair_inputs, 0, pairs[i], out=inputs[i])
        out = torch.addmm(bs[e], inputs[i], ws[e], out=y.parts[i])
        y.add(tokens[i], out.mul_(shares[i]))
    return y.total()


def combine_backward(
    grad: Tensor, a: Tensor, gates: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor, needs: Sequence[bool]
) -> list[Tensor]:
    """Gradients of a, gates, w and b, each empty where ``needs`` is false."""
    need_a, need_gates, need_w, need_b = needs
    blocks = _Blocks(dispatch, a.dtype)
    da = a.new_empty(len(dispatch.order), w.shape[1]) if need_a else a.new_empty(0)
    dw, db = _Gradient(blocks, w, need_w), _Gradient(blocks, b, need_b)
    dshares, row_shares = a.new_empty(len(dispatch.tokens)), _shares(gates, dispatch, a.dtype)
    tokens, pairs, shares, dshare_parts = map(blocks.split, (dispatch.tokens, dispatch.order, row_shares, dshares))
    pair_inputs, inputs = a.flatten(0, 1), blocks.buffer(a, w.shape[1])
    grads, input_grads = blocks.buffer(a, w.shape[2]), blocks.buffer(a, w.shape[1])
    ws, bs = w.mT.unbind(), b.unbind()
    for i, e in enumerate(blocks.experts):
        block, g, block_grad = inputs[i], grads[i], input_grads[i]
        torch.index_select(grad, 0, tokens[i], out=g)
        db.add(e, shares[i], g)
        if need_gates or need_w:
            torch.index_select(pair_inputs, 0, pairs[i], out=block)
        if need_gates or need_a:
            torch.mm(g, ws[e], out=block_grad)
        if need_gates:
            torch.linalg.vecdot(block_grad, block, out=dshare_parts[i]).addmv_(g, bs[e])
        if need_w:
            dw.add(e, block.mul_(shares[i]), g)
        if need_a:
            da.index_copy_(0, pairs[i], block_grad.mul_(shares[i]))
    dgates = dshares[dispatch.inverse].to(gates.dtype) if need_gates else gates.new_empty(0)
    return [da.view(a.shape) if need_a else da, dgates, dw.total, db.total]
