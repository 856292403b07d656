"""The experts one after the other, each on blocks of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

aten = torch.ops.aten

BLOCK = 2**17


def _blocks(counts: Tensor, width: int) -> tuple[list[int], list[int]]:
    """Experts and sizes of the blocks."""
    limit = max(BLOCK // max(width, 1), 32) if counts.device.type == "cpu" else 2**62
    experts, sizes = [], []
    for expert, count in enumerate(counts.tolist()):
        parts = -(-count // limit)
        for part in range(parts):
            experts.append(expert)
            sizes.append(count * (part + 1) // parts - count * part // parts)
    return experts, sizes


def mlp(x, gates, tokens, order, counts, w1, b1, w2, b2, save):
    d, f = w1.shape[1:]
    experts, sizes = _blocks(counts, max(d, f))
    hidden = x.new_empty(len(tokens) if save else 0, f)
    y = x.new_zeros(x.shape)
    if not sizes:
        return y, hidden
    largest = max(sizes)
    xs, outs, acts = x.new_empty(largest, d), x.new_empty(largest, d), x.new_empty(largest, f)
    hiddens = hidden.split(sizes) if save else [None]*len(sizes)
    shares = gates.flatten()[order].to(x.dtype).unsqueeze(1).split(sizes)
    w1s, b1s, w2s, b2s = w1.unbind(), b1.unbind(), w2.unbind(), b2.unbind()
    for e, size, token, h, share in zip(experts, sizes, tokens.split(sizes), hiddens, shares):
        block, out, a = xs[:size], outs[:size], acts[:size]
        torch.index_select(x, 0, token, out=block)
        if save:
            torch.addmm(b1s[e], block, w1s[e], out=h)
            aten.gelu.out(h, out=a)
        else:
            torch.addmm(b1s[e], block, w1s[e], out=a)
            aten.gelu_(a)
        torch.addmm(b2s[e], a, w2s[e], out=out)
        y.index_add_(0, token, out.mul_(share))
    return y, hidden


def mlp_backward(grad, x, gates, tokens, order, inverse, counts, w1, w2, b2, hidden, needs):
    need_x, need_gates, need_w1, need_b1, need_w2, need_b2 = needs
    d, f = w1.shape[1:]
    experts, sizes = _blocks(counts, max(d, f))
    dx = torch.zeros_like(x)
    dw1, dw2, db1, db2 = torch.empty_like(w1), torch.empty_like(w2), b2.new_empty(w1.shape[0], f), torch.empty_like(b2)
    dshares = x.new_empty(len(tokens))
    for e, count in enumerate(counts.tolist()):
        if not count: 
            for t in (dw1, dw2, db1, db2): t[e].zero_()
    largest = max(sizes)
    w1s, w2s, b2s = w1.mT.unbind(), w2.mT.unbind(), b2.unbind()
    dw1s, dw2s, db1s, db2s = dw1.unbind(), dw2.unbind(), db1.unbind(), db2.unbind()
    xs, gs, das, acts = x.new_empty(largest, d), x.new_empty(largest, d), x.new_empty(largest, f), x.new_empty(largest, f)
    shares = gates.flatten()[order].to(x.dtype).unsqueeze(1).split(sizes)
    last = -1
    for e, size, token, h, share, ds in zip(experts, sizes, tokens.split(sizes), hidden.split(sizes), shares, dshares.split(sizes)):
        block, g, da, a = xs[:size], gs[:size], das[:size], acts[:size]
        torch.index_select(grad, 0, token, out=g)
        torch.mm(g, w2s[e], out=da)
        aten.gelu.out(h, out=a)
        torch.linalg.vecdot(da, a, out=ds)
        ds.addmv_(g, b2s[e])
        a.mul_(share)
        first = e != last
        last = e
        beta = 0 if first else 1
        torch.addmm(dw2s[e], a.t(), g, beta=beta, out=dw2s[e])
        torch.addmv(db2s[e], g.t(), share.squeeze(1), beta=beta, out=db2s[e])
        torch.index_select(x, 0, token, out=block)
        dh = aten.gelu_backward.grad_input(da, h, grad_input=da).mul_(share)
        torch.addmm(dw1s[e], block.t(), dh, beta=beta, out=dw1s[e])
        if first:
            torch.sum(dh, 0, out=db1s[e])
        else:
            db1s[e].add_(dh.sum(0))
        torch.mm(dh, w1s[e], out=g)
        dx.index_add_(0, token, g)
    dgates = dshares[inverse].to(gates.dtype)
    return [dx, dgates, dw1, db1, dw2, db2]
