"""Layers of experts on random values, beside the same by masks: every expert for every token, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mtadapt.models.moe.dispatch import expert_combine, expert_mlp, expert_project, sort_by_expert

TOKENS, EMBED, HIDDEN, EXPERTS, TOP_K = 21, 16, 8, 6, 3
DTYPES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}

KERNELS = pytest.mark.parametrize("kernels", ["blocked", "grouped", "looped"])
LAYERS = pytest.mark.parametrize("layer", ["mlp", "project", "combine"])


def random_picks(tokens=TOKENS, experts=EXPERTS, top_k=TOP_K):
    return torch.rand(tokens, experts).argsort(1)[:, :top_k]


def random_inputs(layer, picks, dtype=torch.float64, embed=EMBED, hidden=HIDDEN, experts=EXPERTS):
    """Tensors of a layer by their name, leaves that require gradients."""
    shapes = dict(
        mlp=dict(
            x=(len(picks), embed),
            gates=tuple(picks.shape),
            w1=(experts, embed, hidden),
            b1=(experts, hidden),
            w2=(experts, hidden, embed),
            b2=(experts, embed),
        ),
        project=dict(x=(len(picks), embed), w=(experts, embed, hidden), b=(experts, hidden)),
        combine=dict(
            a=(*picks.shape, hidden),
            gates=tuple(picks.shape),
            w=(experts, hidden, embed),
            b=(experts, embed),
        ),
    )[layer]
    inputs = {}
    for name, shape in shapes.items():
        values = torch.rand(shape) if name == "gates" else torch.randn(shape)
        scale = shape[1] ** -0.5 if name.startswith("w") else 1
        inputs[name] = (values * scale).to(dtype).requires_grad_()
    return inputs


def compute(layer, inputs, dispatch):
    values = dict(inputs)
    first = [values.pop("a" if layer == "combine" else "x")]
    if layer != "project":
        first.append(values.pop("gates"))
    function = dict(mlp=expert_mlp, project=expert_project, combine=expert_combine)[layer]
    return function(*first, dispatch, *values.values())


def expected(layer, inputs, picks):
    """The same in float64 by masks: all experts for all tokens."""
    values = {name: value.double() for name, value in inputs.items()}
    chosen = F.one_hot(picks, len(inputs["b2" if layer == "mlp" else "b"])).double()
    if layer == "project":
        every = torch.einsum("td,edh->teh", values["x"], values["w"]) + values["b"]
        return torch.einsum("tke,teh->tkh", chosen, every)
    if layer == "combine":
        every = torch.einsum("tkh,ehd->tked", values["a"], values["w"]) + values["b"]
        return torch.einsum("tke,tk,tked->td", chosen, values["gates"], every)
    hidden = F.gelu(torch.einsum("td,edf->tef", values["x"], values["w1"]) + values["b1"])
    every = torch.einsum("tef,efd->ted", hidden, values["w2"]) + values["b2"]
    return torch.einsum("tke,tk,ted->td", chosen, values["gates"], every)


def check(layer, inputs, picks, tolerance, experts=EXPERTS, grad=None):
    """Output and gradients are those of the reference."""
    actual = compute(layer, inputs, sort_by_expert(picks, experts))
    wanted = expected(layer, inputs, picks)
    assert_close(actual, wanted, tolerance)
    grad = torch.randn_like(actual) if grad is None else grad.expand_as(actual)
    tensors = [value for value in inputs.values() if value.requires_grad]
    names = [name for name, value in inputs.items() if value.requires_grad]
    found = torch.autograd.grad(actual, tensors, grad)
    truth = torch.autograd.grad(wanted, tensors, grad.double())
    for name, one, two, value in zip(names, found, truth, tensors, strict=True):
        assert one.dtype == value.dtype, name
        assert_close(one, two, tolerance, name)


def assert_close(actual, wanted, tolerance, name="output"):
    assert actual.shape == wanted.shape, name
    scale = max(wanted.abs().max().item(), 1.0) if wanted.numel() else 1.0
    torch.testing.assert_close(
        actual.double(), wanted.double(), rtol=0, atol=tolerance * scale, msg=lambda text: f"{name}: {text}"
    )
