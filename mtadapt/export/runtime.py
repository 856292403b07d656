"""Running exported files, to compare and to time them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mtadapt.export.parity import Runner
from mtadapt.export.program import INPUT


def onnx_runner(path: Path, threads: int = 0, providers: Sequence[str] = ("CPUExecutionProvider",)) -> Runner:
    """Open an ONNX file with onnxruntime.

    Args:
        path: of the file.
        threads: of one operator; 0 for what onnxruntime chooses.
        providers: of onnxruntime.
    """
    import onnxruntime  # type: ignore[import-untyped]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Warnings of onnxruntime are on constants that it could not fold.
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    names = [output.name for output in session.get_outputs()]

    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return dict(zip(names, session.run(names, {INPUT: images}), strict=True))

    return run


def torch_runner(path: Path) -> Runner:
    """Open a program of PyTorch."""
    with warnings.catch_warnings():
        # Weights are read from memory that cannot be written to, and nothing writes.
        warnings.simplefilter("ignore")
        module = torch.export.load(path).module()

    @torch.no_grad()
    def run(images: np.ndarray) -> dict[str, np.ndarray]:
        return {name: value.numpy() for name, value in module(torch.from_numpy(images)).items()}

    return run
