"""Export of trained models: a graph of tensors alone, its files, and how near they are to the model."""

from mtadapt.export.description import describe
from mtadapt.export.graph import MultiTaskGraph, warm_up
from mtadapt.export.parity import TOLERANCE, Difference, compare, compare_raw, differences_table, stock_predictions
from mtadapt.export.program import check_opset, trace, write_onnx, write_torch
from mtadapt.export.runtime import onnx_runner, torch_runner

__all__ = [
    "TOLERANCE",
    "Difference",
    "MultiTaskGraph",
    "check_opset",
    "compare",
    "compare_raw",
    "describe",
    "differences_table",
    "onnx_runner",
    "stock_predictions",
    "torch_runner",
    "trace",
    "warm_up",
    "write_onnx",
    "write_torch",
]
