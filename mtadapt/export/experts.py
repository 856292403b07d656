"""Layers of experts in ONNX: each expert multiplies the rows of the tokens that picked it.

The operators are those of :mod:`mtadapt.models.moe.dispatch`. An expert without rows multiplies nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from onnxscript import opset18

import mtadapt.models.moe  # noqa: F401  registers the operators

op: Any = opset18


def expert_translations() -> dict[Any, Callable[..., Any]]:
    """Operators of the experts to what writes them."""
    own = torch.ops.mtadapt
    return {
        own.sort_by_expert.default: _sort_by_expert,
        own.expert_mlp.default: _mlp,
        own.expert_project.default: _project,
        own.expert_combine.default: _combine,
    }


def _sort_by_expert(picks: Any, num_experts: int) -> tuple[Any, Any, Any, Any]:
    flat = op.Reshape(picks, _ints(-1))
    length = op.Shape(flat)
    order = op.TopK(flat, length, axis=0, largest=0)[1]
    zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
    places = op.Range(zero, op.Squeeze(length), one)
    inverse = op.Reshape(op.ScatterElements(order, order, places, axis=0), op.Shape(picks))
    tokens = op.Div(order, op.Gather(op.Shape(picks), _ints(1), axis=0))
    mine = op.Equal(op.Unsqueeze(flat, _ints(1)), op.Unsqueeze(_ints(*range(num_experts)), _ints(0)))
    return tokens, order, inverse, op.ReduceSum(op.Cast(mine, to=7), _ints(0), keepdims=0)


def _mlp(x: Any, gates: Any, tokens: Any, order: Any, inverse: Any, counts: Any, *others: Any) -> tuple[Any, Any]:
    w1, b1, w2, b2, _ = others
    hidden = _multiplied(op.Gather(x, tokens), counts, w1, b1)
    erf = op.Erf(op.Div(hidden, _number(math.sqrt(2))))
    hidden = op.Mul(op.Mul(hidden, _number(0.5)), op.Add(erf, _number(1.0)))
    # The second output is for training alone.
    return _gated(_multiplied(hidden, counts, w2, b2), gates, inverse), _number(0.0)


def _project(x: Any, tokens: Any, order: Any, inverse: Any, counts: Any, w: Any, b: Any) -> Any:
    return op.Gather(_multiplied(op.Gather(x, tokens), counts, w, b), inverse)


def _combine(a: Any, gates: Any, tokens: Any, order: Any, inverse: Any, counts: Any, w: Any, b: Any) -> Any:
    flat = op.Reshape(a, _ints(-1, w.shape[1]))
    return _gated(_multiplied(op.Gather(flat, order), counts, w, b), gates, inverse)


def _multiplied(rows: Any, counts: Any, w: Any, b: Any) -> Any:
    """Rows ``(R, d)`` in the order of the experts, each with the matrix and the bias of its expert: ``(R, f)``."""
    pieces = op.SplitToSequence(rows, counts, axis=0)
    found = []
    for expert in range(w.shape[0]):
        number = op.Constant(value_int=expert)
        found.append(op.Gemm(op.SequenceAt(pieces, number), op.Gather(w, number), op.Gather(b, number)))
    return op.Concat(*found, axis=0)


def _gated(rows: Any, gates: Any, inverse: Any) -> Any:
    """The sum over the picks of a token of their rows times their gates: ``(T, d)``."""
    weighted = op.Mul(op.Gather(rows, inverse), op.Unsqueeze(gates, _ints(-1)))
    return op.ReduceSum(weighted, _ints(1), keepdims=0)


def _ints(*values: int) -> Any:
    return op.Constant(value_ints=list(values))


def _number(value: float) -> Any:
    return op.Constant(value_float=value)
