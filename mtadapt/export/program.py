"""Graphs as files: ONNX, and PyTorch's exported programs."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.errors import MTAdaptError, first_line
from mtadapt.export.graph import MultiTaskGraph, warm_up
from mtadapt.export.layers import unfit_layers
from mtadapt.export.suppression import plain_suppression

#: Name of the one input of a graph, and of the file in a program of PyTorch that holds what describes it.
INPUT, DESCRIPTION = "images", "mtadapt.json"
#: Opsets of ONNX that the translations are written for.
OPSETS = range(18, 24)


def trace(graph: MultiTaskGraph, size: tuple[int, int], fixed_size: bool = False, kind: str = "onnx") -> Any:
    """Trace a graph for every number of images and, unless it is fixed, every size.

    Args:
        graph: in evaluation mode.
        size: width and height of the images.
        fixed_size: whether only this size is taken.
        kind: of the file that it is for, ``onnx`` or ``torch``.

    Returns:
        The :class:`torch.export.ExportedProgram`.

    Raises:
        MTAdaptError: for a model that cannot be traced, with the exporter's reason; too small images; a divisor of
            their sides that the backbone's stride does not divide; and experts in a program of PyTorch.
    """
    width, height = size
    smallest, unfit = warm_up(graph), unfit_layers(graph)
    if not fixed_size and unfit:
        raise MTAdaptError(
            f"pad_size_divisor={graph.divisor}: {', '.join(unfit)} pads by the size of its map, which a graph for "
            "every size can follow where the stride of the backbone divides the sides of padded images; set "
            "model.data_preprocessor.pad_size_divisor to that stride, or add --fixed-size"
        )
    if not fixed_size and min(size) < smallest:
        raise MTAdaptError(
            f"--size {width}x{height}: a graph for every size is traced with images of at least {smallest} pixels a "
            "side; name larger ones, or add --fixed-size"
        )
    if kind == "torch" and graph.has_experts:
        raise MTAdaptError(
            "--format torch: a layer of experts is an operator of mtadapt, without which a program could not be read; "
            "write --format onnx"
        )
    any_value = torch.export.Dim.DYNAMIC
    shapes = {0: any_value} if fixed_size else {0: any_value, 1: any_value, 2: any_value}
    if not fixed_size:
        # Sides that need padding, because the exporter would take it for granted that none do.
        height, width = (side - 1 if side % graph.divisor == 0 else side for side in (height, width))
    # Two images, because the exporter takes a size of one for a constant.
    images = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    try:
        with torch.no_grad(), _quiet(), nullcontext() if kind == "onnx" else plain_suppression():
            return torch.export.export(graph, (images,), dynamic_shapes={INPUT: shapes}, strict=False)
    except MTAdaptError:
        raise
    except Exception as error:  # the exporter raises errors of many kinds
        remedy = "leave tasks out with --tasks" if fixed_size else "try --fixed-size, or leave tasks out with --tasks"
        raise MTAdaptError(f"PyTorch cannot trace the model ({first_line(error)}); {remedy}") from error


def check_opset(opset: int) -> None:
    """Refuse an opset that the translations are not written for.

    Raises:
        MTAdaptError: with those that they are.
    """
    if opset not in OPSETS:
        raise MTAdaptError(f"--opset {opset}: write one of {OPSETS[0]} to {OPSETS[-1]}")


def write_onnx(program: Any, graph: MultiTaskGraph, path: Path, about: Mapping[str, Any], opset: int = 18) -> None:
    """Write an ONNX file.

    Args:
        program: of :func:`trace`.
        graph: that was traced.
        path: of the file.
        about: what describes the model; each entry becomes one of ``metadata_props``, as JSON.
        opset: version of ONNX' operators.

    Raises:
        MTAdaptError: for a model with an operator that ONNX does not have, or another opset.
    """
    import onnx

    from mtadapt.export.translations import translations

    check_opset(opset)
    try:
        with _quiet():
            made = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=opset,
                input_names=[INPUT],
                output_names=graph.outputs,
                custom_translation_table=translations(),
            )
            assert made is not None
            proto = made.model_proto
    except Exception as error:  # the exporter raises errors of many kinds
        raise MTAdaptError(
            f"the model cannot be written as ONNX ({first_line(error)}); leave tasks out with --tasks, or write "
            "--format torch"
        ) from error
    _name_dimensions(proto)
    _forget_origins(proto)
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in about.items()})
    proto.producer_name = "mtadapt"
    onnx.checker.check_model(proto)
    write_atomically(path, proto.SerializeToString())


def _name_dimensions(proto: Any) -> None:
    """Give the free dimensions of the input the names that a reader expects, and the outputs those that they share."""
    given = proto.graph.input[0].type.tensor_type.shape.dim
    names = {dim.dim_param: name for dim, name in zip(given, ("batch", "height", "width"), strict=False)}
    names.pop("", None)  # of sides that are fixed
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    # Shapes in between name dimensions as the tracer did, and nothing needs them.
    del proto.graph.value_info[:]


def _forget_origins(proto: Any) -> None:
    """Remove what the exporter tells its developers: lines and paths of the program that was traced."""
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del part.metadata_props[:]


def write_torch(program: Any, path: Path, about: Mapping[str, Any]) -> None:
    """Write a program of PyTorch, which :func:`torch.export.load` reads where torch and torchvision are imported.

    Args:
        program: of :func:`trace` with ``kind="torch"``; its guards are removed.
        path: of the file.
        about: what describes the model; an extra file of the archive, as JSON.
    """
    # What the tracer took for true of its own images, e.g. that a map is odd, though the graph does not depend on it.
    program._guards_code = []
    for node in program.graph.nodes:
        # Lines and paths of this program.
        node.meta.pop("stack_trace", None)
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={DESCRIPTION: json.dumps(dict(about))})
    write_atomically(path, buffer.getvalue())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice to its developers."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "torch.export", "torch.fx", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
