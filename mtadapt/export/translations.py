"""Operators that :func:`torch.onnx.export` is told how to write."""

from __future__ import annotations

from typing import Any

import torch
from onnxscript import opset18

from mtadapt.export.experts import expert_translations
from mtadapt.export.suppression import NOTHING, OPERATOR

op: Any = opset18


def translations() -> dict[Any, Any]:
    """Operators of PyTorch to what writes them."""
    return {
        OPERATOR: _non_maximum_suppression,
        torch.ops.aten.sigmoid.default: _sigmoid,
        torch.ops.aten.sort.stable: _sort,
        **expert_translations(),
    }


def _sigmoid(values: Any) -> Any:
    """``1 / (1 + exp(-x))``, because onnxruntime's ``Sigmoid`` is some percent off for scores of a millionth.

    Where a small image leaves so few candidates that such scores count, their order decides which boxes are kept.
    """
    one = op.Constant(value_float=1.0)
    return op.Div(one, op.Add(one, op.Exp(op.Neg(values))))


def _sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> tuple[Any, Any]:
    """As ``TopK`` of all values, which puts the lower place first where they are equal."""
    length = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, length, axis=dim, largest=int(descending))


def _non_maximum_suppression(boxes: Any, scores: Any, iou_threshold: float) -> Any:
    limit = op.Gather(op.Shape(scores), op.Constant(value_ints=[1]), axis=0)
    # Rows of image, class (there is one) and box.
    kept = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, op.Constant(value_ints=[1])),
        limit,
        op.Constant(value_floats=[iou_threshold]),
        op.Constant(value_floats=[NOTHING / 2]),
    )
    places = op.Gather(kept, op.Constant(value_ints=[0, 2]), axis=1)
    nothing = op.ConstantOfShape(op.Shape(scores))
    rows = op.Gather(op.Shape(kept), op.Constant(value_ints=[0]), axis=0)
    return op.Greater(op.ScatterND(nothing, places, op.Expand(op.Constant(value_float=1.0), rows)), nothing)
