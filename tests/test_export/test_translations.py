"""Operators as onnxruntime computes them, against double precision."""

from __future__ import annotations

import onnxruntime
import torch

from mtadapt.export.translations import translations


def test_sigmoid_is_exact_for_small_scores():
    """The order of scores of a millionth decides which boxes are kept where there are no better ones."""
    values = torch.linspace(-60, 60, 4001)
    program = torch.export.export(torch.nn.Sigmoid(), (values,))
    made = torch.onnx.export(
        program, dynamo=True, optimize=False, verbose=False, custom_translation_table=translations()
    )
    assert made is not None
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: values.numpy()})
    exact = values.double().sigmoid()
    assert ((torch.from_numpy(found) - exact).abs() / exact).max() < 1e-6
    assert session.run(None, {session.get_inputs()[0].name: (values * 100).numpy()})[0].min() == 0
