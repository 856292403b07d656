"""Operators of torch around the kernels of the experts: their derivatives, shapes and FLOPs."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from mtadapt.models.moe import _blocked
from mtadapt.models.moe._rows import GroupedProducts, LoopedProducts, RowKernels

KERNELS: dict[str, ModuleType | RowKernels] = dict(
    blocked=_blocked, grouped=RowKernels(GroupedProducts), looped=RowKernels(LoopedProducts)
)


class Dispatch(NamedTuple):
    """Which rows there are, see :func:`~mtadapt.models.moe.dispatch.sort_by_expert`.

    Attributes:
        tokens: ``(T * k,)`` int64, token of each row.
        order: ``(T * k,)`` int64, pair of each row: its token times k plus the number of its pick.
        inverse: ``(T, k)`` int64, row of each pair.
        counts: ``(E,)`` int64, rows of each expert.
    """

    tokens: Tensor
    order: Tensor
    inverse: Tensor
    counts: Tensor


def choose_kernels(x: Tensor, *weights: Tensor) -> ModuleType | RowKernels:
    """The fastest kernels for these tensors."""
    if x.device.type == "cpu" or not x.numel():
        return _blocked
    return KERNELS["grouped" if GroupedProducts.serve(x, *weights) else "looped"]


def _run(kernel: str, operands: Sequence[Tensor], *args: Any) -> Any:
    run, device = getattr(choose_kernels(*operands), kernel), operands[0].device.type
    if not torch.is_autocast_enabled(device):
        return run(*args)
    with torch.autocast(device, enabled=False):  # everything has its dtype already
        return run(*args)


def _operator(name: str, schema: str) -> Any:
    """Decorator that makes an operator; ``DISPATCH`` in the schema stands for the parts of a :class:`Dispatch`."""
    schema = schema.replace("DISPATCH", ", ".join(f"Tensor {field}" for field in Dispatch._fields))
    return torch.library.custom_op(f"mtadapt::{name}", mutates_args=(), schema=schema)


def _like(tensors: Sequence[Tensor], needs: Sequence[bool]) -> list[Tensor]:
    """Shapes of the gradients."""
    return [tensor.new_empty(tensor.shape if need else (0,)) for tensor, need in zip(tensors, needs, strict=True)]


def _gradients(
    ctx: Any, operator: Any, grad: Tensor | None, positions: Sequence[int], num_inputs: int
) -> tuple[Tensor | None, ...]:
    """Call the backward ``operator`` for the inputs at ``positions``, and put what is needed at these places."""
    found: list[Tensor | None] = [None] * num_inputs
    if grad is not None:
        needs = [ctx.needs_input_grad[position] for position in positions]
        for position, need, each in zip(positions, needs, operator(grad, *ctx.saved_tensors, needs), strict=True):
            found[position] = each if need else None
    return tuple(found)


# --------------------------------------------------------------------------------------------------------------- sort
@torch.library.custom_op("mtadapt::sort_by_expert", mutates_args=())
def sort_operator(picks: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The parts of the :class:`Dispatch` of :func:`~mtadapt.models.moe.dispatch.sort_by_expert`."""
    experts, order = picks.flatten().sort(stable=True)
    # Not bincount, which waits for the host on a GPU.
    ends = torch.searchsorted(experts, torch.arange(num_experts, device=picks.device), right=True)
    counts = ends.diff(prepend=ends.new_zeros(1))
    inverse = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=picks.device))
    return order // max(picks.shape[1], 1), order, inverse.view(picks.shape), counts


@sort_operator.register_fake
def _(picks: Tensor, num_experts: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pairs = picks.shape[0] * picks.shape[1]
    return picks.new_empty(pairs), picks.new_empty(pairs), picks.new_empty(picks.shape), picks.new_empty(num_experts)


# ---------------------------------------------------------------------------------------------------------------- mlp
@_operator(
    "expert_mlp",
    "(Tensor x, Tensor gates, DISPATCH, Tensor w1, Tensor b1, Tensor w2, Tensor b2, bool save) -> (Tensor, Tensor)",
)
def mlp_operator(x: Tensor, gates: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    """See :func:`~mtadapt.models.moe.dispatch.expert_mlp`; the second output is for the backward, if ``save``."""
    w1, b1, w2, b2, save = others[4:]
    return _run("mlp", (x, w1, w2), x, gates, Dispatch(*others[:4]), w1, b1, w2, b2, save)


@_operator(
    "expert_mlp_backward",
    "(Tensor grad, Tensor x, Tensor gates, DISPATCH, Tensor w1, Tensor w2, Tensor b2, Tensor hidden, bool[] needs)"
    " -> Tensor[]",
)
def _mlp_backward(grad: Tensor, x: Tensor, gates: Tensor, *others: Any) -> list[Tensor]:
    w1, w2, *rest = others[4:]
    return _run("mlp_backward", (x, w1, w2), grad, x, gates, Dispatch(*others[:4]), w1, w2, *rest)


@mlp_operator.register_fake
def _(x: Tensor, gates: Tensor, *others: Any) -> tuple[Tensor, Tensor]:
    tokens, w1, w2, save = others[0], others[4], others[6], others[8]
    return x.new_empty(x.shape[0], w2.shape[2]), x.new_empty(tokens.shape[0] if save else 0, w1.shape[2])


@_mlp_backward.register_fake
def _(grad: Tensor, x: Tensor, gates: Tensor, *others: Any) -> list[Tensor]:
    w1, w2, b2, _, needs = others[4:]
    return _like((x, gates, w1, w1[:, 0], w2, b2), needs)


def _save_mlp(ctx: Any, inputs: tuple, output: tuple) -> None:
    x, gates, *dispatch, w1, _, w2, b2, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(x, gates, *dispatch, w1, w2, b2, output[1])


def _differentiate_mlp(ctx: Any, grad: Tensor | None, _: None) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, _mlp_backward, grad, (0, 1, 6, 7, 8, 9), 11)


mlp_operator.register_autograd(_differentiate_mlp, setup_context=_save_mlp)


@register_flop_formula(torch.ops.mtadapt.expert_mlp)
def _(x: Sequence[int], gates: Sequence[int], *others: Any, **_: Any) -> int:
    return _flops(others[0], others[4]) + _flops(others[0], others[6])


@register_flop_formula(torch.ops.mtadapt.expert_mlp_backward)
def _(grad: Sequence[int], x: Sequence[int], gates: Sequence[int], *others: Any, **_: Any) -> int:
    tokens, w1, w2, (need_x, need_gates, need_w1, need_b1, need_w2, _) = others[0], others[4], others[5], others[8]
    first = need_x + need_w1
    second = (need_gates or need_x or need_w1 or need_b1) + need_w2
    return first * _flops(tokens, w1) + second * _flops(tokens, w2)


# ------------------------------------------------------------------------------------------------------------ project
@_operator("expert_project", "(Tensor x, DISPATCH, Tensor w, Tensor b) -> Tensor")
def project_operator(x: Tensor, *others: Any) -> Tensor:
    """See :func:`~mtadapt.models.moe.dispatch.expert_project`."""
    w, b = others[4:]
    return _run("project", (x, w), x, Dispatch(*others[:4]), w, b)


@_operator("expert_project_backward", "(Tensor grad, Tensor x, DISPATCH, Tensor w, bool[] needs) -> Tensor[]")
def _project_backward(grad: Tensor, x: Tensor, *others: Any) -> list[Tensor]:
    w, needs = others[4:]
    return _run("project_backward", (x, w), grad, x, Dispatch(*others[:4]), w, needs)


@project_operator.register_fake
def _(x: Tensor, *others: Any) -> Tensor:
    inverse, w = others[2], others[4]
    return x.new_empty(*inverse.shape, w.shape[2])


@_project_backward.register_fake
def _(grad: Tensor, x: Tensor, *others: Any) -> list[Tensor]:
    w, needs = others[4:]
    return _like((x, w, w[:, 0]), needs)


def _save_project(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:-1])


def _differentiate_project(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, _project_backward, grad, (0, 5, 6), 7)


project_operator.register_autograd(_differentiate_project, setup_context=_save_project)


@register_flop_formula(torch.ops.mtadapt.expert_project)
def _(x: Sequence[int], *others: Any, **_: Any) -> int:
    return _flops(others[0], others[4])


@register_flop_formula(torch.ops.mtadapt.expert_project_backward)
def _(grad: Sequence[int], x: Sequence[int], *others: Any, **_: Any) -> int:
    need_x, need_w, _ = others[5]
    return (need_x + need_w) * _flops(others[0], others[4])


# ------------------------------------------------------------------------------------------------------------ combine
@_operator("expert_combine", "(Tensor a, Tensor gates, DISPATCH, Tensor w, Tensor b) -> Tensor")
def combine_operator(a: Tensor, gates: Tensor, *others: Any) -> Tensor:
    """See :func:`~mtadapt.models.moe.dispatch.expert_combine`."""
    w, b = others[4:]
    return _run("combine", (a, w), a, gates, Dispatch(*others[:4]), w, b)


@_operator(
    "expert_combine_backward",
    "(Tensor grad, Tensor a, Tensor gates, DISPATCH, Tensor w, Tensor b, bool[] needs) -> Tensor[]",
)
def _combine_backward(grad: Tensor, a: Tensor, gates: Tensor, *others: Any) -> list[Tensor]:
    w, b, needs = others[4:]
    return _run("combine_backward", (a, w), grad, a, gates, Dispatch(*others[:4]), w, b, needs)


@combine_operator.register_fake
def _(a: Tensor, gates: Tensor, *others: Any) -> Tensor:
    return a.new_empty(a.shape[0], others[4].shape[2])


@_combine_backward.register_fake
def _(grad: Tensor, a: Tensor, gates: Tensor, *others: Any) -> list[Tensor]:
    w, b, needs = others[4:]
    return _like((a, gates, w, b), needs)


def _save_combine(ctx: Any, inputs: tuple, output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _differentiate_combine(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, ...]:
    return _gradients(ctx, _combine_backward, grad, (0, 1, 6, 7), 8)


combine_operator.register_autograd(_differentiate_combine, setup_context=_save_combine)


@register_flop_formula(torch.ops.mtadapt.expert_combine)
def _(a: Sequence[int], gates: Sequence[int], *others: Any, **_: Any) -> int:
    return _flops(others[0], others[4])


@register_flop_formula(torch.ops.mtadapt.expert_combine_backward)
def _(grad: Sequence[int], a: Sequence[int], gates: Sequence[int], *others: Any, **_: Any) -> int:
    need_a, need_gates, need_w, _ = others[6]
    return ((need_a or need_gates) + need_w) * _flops(others[0], others[4])


def _flops(tokens: Sequence[int], weights: Sequence[int]) -> int:
    """Of the product of every row with its expert's matrix, from the shapes of both."""
    return 2 * tokens[0] * weights[1] * weights[2]
