"""Operators of the experts as onnxruntime computes them, against loops in double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mtadapt.export.translations import translations
from mtadapt.models.moe.dispatch import expert_combine, expert_mlp, expert_project, sort_by_expert
from mtadapt.models.moe.router import choose_experts

TOKENS, PICKS, EXPERTS, WIDTH, HIDDEN = 23, 3, 6, 8, 5


class _Function(nn.Module):
    def __init__(self, function: Callable[..., Tensor | tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.function(*inputs)


def _run(function: Callable, traced: tuple[Tensor, ...], inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    """Trace with some inputs, for any number of tokens, and run with others."""
    free = {0: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        program = torch.export.export(
            _Function(function), traced, dynamic_shapes=dict(inputs=tuple(free for _ in traced)), strict=False
        )
        made = torch.onnx.export(
            program, dynamo=True, optimize=False, verbose=False, custom_translation_table=translations()
        )
    assert made is not None
    session = onnxruntime.InferenceSession(made.model_proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return session.run(None, {name: value.numpy() for name, value in zip(names, inputs, strict=True)})


def _inputs(tokens: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, gates and picks; nobody picks the last expert, and everybody the second."""
    generator = torch.Generator().manual_seed(seed)
    others = torch.tensor([0, 2, 3, 4])
    order = torch.rand(tokens, len(others), generator=generator).argsort(1)[:, : PICKS - 1]
    picks = torch.cat((torch.ones(tokens, 1, dtype=torch.int64), others[order]), dim=1)
    x = torch.randn(tokens, WIDTH, generator=generator)
    return x, torch.rand(tokens, PICKS, generator=generator), picks


def _weights(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(EXPERTS, rows, columns, generator=generator),
        torch.randn(EXPERTS, columns, generator=generator),
    )


@pytest.mark.parametrize("tokens", [1, TOKENS, 40])
def test_the_mlp(tokens: int):
    (w1, b1), (w2, b2) = _weights(WIDTH, HIDDEN, 1), _weights(HIDDEN, WIDTH, 2)

    def ours(x: Tensor, gates: Tensor, picks: Tensor) -> Tensor:
        return expert_mlp(x, gates, sort_by_expert(picks, EXPERTS), w1, b1, w2, b2)

    inputs = _inputs(tokens, 7)
    (found,) = _run(ours, _inputs(TOKENS, 3), inputs)
    x, gates, picks = inputs
    for token in range(tokens):
        exact = torch.zeros(WIDTH, dtype=torch.float64)
        for gate, e in zip(gates[token].double(), picks[token], strict=True):
            hidden = nn.functional.gelu(x[token].double() @ w1[e].double() + b1[e].double())
            exact += gate * (hidden @ w2[e].double() + b2[e].double())
        np.testing.assert_allclose(found[token], exact.numpy(), atol=1e-5)


def test_the_projections_of_attention():
    (w, b), (wo, bo) = _weights(WIDTH, HIDDEN, 1), _weights(HIDDEN, WIDTH, 2)

    def ours(x: Tensor, gates: Tensor, picks: Tensor) -> tuple[Tensor, Tensor]:
        dispatch = sort_by_expert(picks, EXPERTS)
        q = expert_project(x, dispatch, w, b)
        return q, expert_combine(q.tanh(), gates, dispatch, wo, bo)

    inputs = _inputs(31, 7)
    found_q, found = _run(ours, _inputs(TOKENS, 3), inputs)
    x, gates, picks = inputs
    for token in range(31):
        experts = picks[token]
        q = torch.stack([x[token].double() @ w[e].double() + b[e].double() for e in experts])
        np.testing.assert_allclose(found_q[token], q.numpy(), atol=1e-5)
        each = torch.stack([row.tanh() @ wo[e].double() + bo[e].double() for row, e in zip(q, experts, strict=True)])
        np.testing.assert_allclose(found[token], (gates[token].double()[:, None] * each).sum(0).numpy(), atol=1e-5)


def test_equally_probable_experts():
    """Those with the lowest numbers, as in the model; routers begin so."""
    p = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.1, 0.4], [0.3, 0.3, 0.1, 0.3], [0.2, 0.1, 0.6, 0.1]])
    gates, picks = _run(lambda p: choose_experts(p, 2), (p,), (p,))
    assert picks.tolist() == [[0, 1], [1, 3], [0, 1], [2, 0]]
    np.testing.assert_array_equal(gates, np.take_along_axis(p.numpy(), picks, 1))
