"""All rows at once, in the order of the experts: the kernels for a GPU.

The matrix products of all experts are one call of ``grouped_mm``, which reads the numbers of rows on the device. Where
it does not apply they are a loop, which needs these numbers on the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from mtadapt.models.moe._operators import Dispatch


class Products(Protocol):
    """Matrix products of every expert with its rows."""

    def forward(self, rows: Tensor, weights: Tensor) -> Tensor:
        """``(R, a)`` by ``(E, a, b)`` to ``(R, b)``."""

    def gradient(self, left: Tensor, right: Tensor) -> Tensor:
        """``(R, a)`` and ``(R, b)`` to ``(E, a, b)``: left.T @ right of every expert, zero where it has no rows."""


class GroupedProducts:
    """By ``torch.nn.functional.grouped_mm``."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._ends = dispatch.counts.cumsum(0).to(torch.int32)

    def forward(self, rows: Tensor, weights: Tensor) -> Tensor:
        """See :class:`Products`."""
        return F.grouped_mm(rows, weights, offs=self._ends)

    def gradient(self, left: Tensor, right: Tensor) -> Tensor:
        """See :class:`Products`."""
        return F.grouped_mm(left.t(), right, offs=self._ends)

    @staticmethod
    def serve(x: Tensor, *weights: Tensor) -> bool:
        """Whether ``grouped_mm`` takes these, and, on a GPU, has a kernel that does not wait for the host."""
        if not hasattr(F, "grouped_mm") or any(width * x.element_size() % 16 for w in weights for width in w.shape[1:]):
            return False
        if x.is_cuda:
            return x.dtype == torch.bfloat16 and torch.cuda.get_device_capability(x.device) >= (8, 0)
        return x.dtype in (torch.bfloat16, torch.float16, torch.float32)


class LoopedProducts:
    """By a loop over the experts."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._sizes = dispatch.counts.tolist()

    def forward(self, rows: Tensor, weights: Tensor) -> Tensor:
        """See :class:`Products`."""
        out = rows.new_empty(len(rows), weights.shape[2])
        for part, block, weight in zip(out.split(self._sizes), rows.split(self._sizes), weights.unbind(), strict=True):
            torch.mm(block, weight, out=part)
        return out

    def gradient(self, left: Tensor, right: Tensor) -> Tensor:
        """See :class:`Products`."""
        out = left.new_empty(len(self._sizes), left.shape[1], right.shape[1])
        for part, a, b in zip(out.unbind(), left.split(self._sizes), right.split(self._sizes), strict=True):
            torch.mm(a.t(), b, out=part)
        return out


class RowKernels:
    """The kernels of the operators in :mod:`mtadapt.models.moe._operators`, see :mod:`mtadapt.models.moe._blocked`.

    Args:
        products: how matrices are multiplied.
    """

    def __init__(self, products: Callable[[Dispatch], Products]) -> None:
        self._products = products

    def mlp(
        self, x: Tensor, gates: Tensor, dispatch: Dispatch, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, save: bool
    ) -> tuple[Tensor, Tensor]:
        """As ``_blocked.mlp``."""
        products, experts = self._products(dispatch), _experts(dispatch)
        h = products.forward(x.index_select(0, dispatch.tokens), w1).add_(b1.index_select(0, experts))
        out = products.forward(F.gelu(h), w2)
        return _weighted_sum(out, b2, experts, gates, dispatch), h if save else h.new_empty(0, h.shape[1])

    def mlp_backward(
        self,
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
        """As ``_blocked.mlp_backward``."""
        need_x, need_gates, need_w1, need_b1, need_w2, need_b2 = needs
        dx, dgates, dw1, db1, dw2, db2 = (x.new_empty(0) for _ in needs)
        products, shares = self._products(dispatch), _shares(gates, dispatch, x.dtype)
        g = grad.index_select(0, dispatch.tokens)
        if need_gates or need_w2:
            a = F.gelu(hidden)
        if need_gates or need_x or need_w1 or need_b1:
            da = products.forward(g, w2.mT)
        if need_gates:
            dgates = _gate_gradient(da, a, grad, b2, gates, dispatch)
        g.mul_(shares)
        if need_w2:
            dw2 = products.gradient(a, g)
        if need_b2:
            db2 = _bias_gradient(products, g)
        if need_x or need_w1 or need_b1:
            dh = torch.ops.aten.gelu_backward(da, hidden).mul_(shares)
        if need_w1:
            dw1 = products.gradient(x.index_select(0, dispatch.tokens), dh)
        if need_b1:
            db1 = _bias_gradient(products, dh)
        if need_x:
            dx = F.embedding_bag(dispatch.inverse, products.forward(dh, w1.mT), mode="sum")
        return [dx, dgates, dw1, db1, dw2, db2]

    def project(self, x: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor) -> Tensor:
        """As ``_blocked.project``."""
        rows = self._products(dispatch).forward(x.index_select(0, dispatch.tokens), w)
        rows.add_(b.index_select(0, _experts(dispatch)))
        return rows.index_select(0, dispatch.inverse.flatten()).view(*dispatch.inverse.shape, w.shape[2])

    def project_backward(
        self, grad: Tensor, x: Tensor, dispatch: Dispatch, w: Tensor, needs: Sequence[bool]
    ) -> list[Tensor]:
        """As ``_blocked.project_backward``."""
        dx, dw, db = (x.new_empty(0) for _ in needs)
        products, g = self._products(dispatch), grad.flatten(0, 1).index_select(0, dispatch.order)
        if needs[0]:
            dx = F.embedding_bag(dispatch.inverse, products.forward(g, w.mT), mode="sum")
        if needs[1]:
            dw = products.gradient(x.index_select(0, dispatch.tokens), g)
        if needs[2]:
            db = _bias_gradient(products, g)
        return [dx, dw, db]

    def combine(self, a: Tensor, gates: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor) -> Tensor:
        """As ``_blocked.combine``."""
        out = self._products(dispatch).forward(a.flatten(0, 1).index_select(0, dispatch.order), w)
        return _weighted_sum(out, b, _experts(dispatch), gates, dispatch)

    def combine_backward(
        self, grad: Tensor, a: Tensor, gates: Tensor, dispatch: Dispatch, w: Tensor, b: Tensor, needs: Sequence[bool]
    ) -> list[Tensor]:
        """As ``_blocked.combine_backward``."""
        need_a, need_gates, need_w, need_b = needs
        da, dgates, dw, db = (a.new_empty(0) for _ in needs)
        products, shares = self._products(dispatch), _shares(gates, dispatch, a.dtype)
        rows = a.flatten(0, 1).index_select(0, dispatch.order)
        g = grad.index_select(0, dispatch.tokens)
        if need_gates or need_a:
            row_grads = products.forward(g, w.mT)
        if need_gates:
            dgates = _gate_gradient(row_grads, rows, grad, b, gates, dispatch)
        g.mul_(shares)
        if need_w:
            dw = products.gradient(rows, g)
        if need_b:
            db = _bias_gradient(products, g)
        if need_a:
            da = row_grads.mul_(shares).index_select(0, dispatch.inverse.flatten()).view(a.shape)
        return [da, dgates, dw, db]


def _experts(dispatch: Dispatch) -> Tensor:
    """``(R,)`` expert of every row; with its size given, the device need not be asked."""
    return torch.repeat_interleave(dispatch.counts, output_size=len(dispatch.tokens))


def _shares(gates: Tensor, dispatch: Dispatch, dtype: torch.dtype) -> Tensor:
    """Gates of the rows as a column."""
    return gates.flatten().index_select(0, dispatch.order).to(dtype).unsqueeze(1)


def _weighted_sum(rows: Tensor, biases: Tensor, experts: Tensor, gates: Tensor, dispatch: Dispatch) -> Tensor:
    """``(T, d)``: gates times rows and biases, added up for every token."""
    weights = gates.to(rows.dtype)
    y = F.embedding_bag(dispatch.inverse, rows, mode="sum", per_sample_weights=weights)
    return y.add_(F.embedding_bag(experts[dispatch.inverse], biases, mode="sum", per_sample_weights=weights))


def _gate_gradient(
    row_grads: Tensor, rows: Tensor, grad: Tensor, biases: Tensor, gates: Tensor, dispatch: Dispatch
) -> Tensor:
    """Gradient of the gates; ``row_grads`` is that of the last product's input without the gates."""
    by_row = torch.linalg.vecdot(row_grads, rows)
    of_biases = torch.mm(grad, biases.t()).gather(1, _experts(dispatch)[dispatch.inverse])
    return by_row[dispatch.inverse].add_(of_biases).to(gates.dtype)


def _bias_gradient(products: Products, rows: Tensor) -> Tensor:
    """``(E, a)``: the rows of every expert added up, as a product, since its columns must fill 16 bytes with 8."""
    return products.gradient(rows.new_ones(len(rows), 8), rows)[:, 0].contiguous()
