"""Tests of the dispatch of tokens to experts, against every expert computed for every token in float64."""

from __future__ import annotations

import pytest
import torch

from mtadapt.models.moe import _blocked, _operators
from mtadapt.models.moe.dispatch import sort_by_expert
from tests.test_models.test_moe.masked import (
    DTYPES,
    EXPERTS,
    KERNELS,
    LAYERS,
    TOP_K,
    check,
    compute,
    random_inputs,
    random_picks,
)


def test_rows_are_sorted_by_expert_and_token():
    picks = random_picks(50)
    dispatch = sort_by_expert(picks, EXPERTS)
    rows = sorted((expert, token, pick) for token, row in enumerate(picks.tolist()) for pick, expert in enumerate(row))
    assert dispatch.tokens.tolist() == [token for _, token, _ in rows]
    assert dispatch.order.tolist() == [token * TOP_K + pick for _, token, pick in rows]
    assert [dispatch.order[row].item() for row in dispatch.inverse.flatten()] == [*range(50 * TOP_K)]
    assert dispatch.counts.tolist() == [(picks == expert).sum().item() for expert in range(EXPERTS)]
    assert all(part.dtype == torch.int64 for part in dispatch)


@KERNELS
@LAYERS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_output_and_gradients(use, kernels, layer, dtype):
    if kernels == "grouped" and dtype == torch.float64:
        pytest.skip("grouped_mm has no float64")
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks()
    check(layer, random_inputs(layer, picks, dtype), picks, DTYPES[dtype])


@pytest.mark.parametrize("kernels", ["blocked", "looped"])
@LAYERS
def test_gradients_are_those_of_finite_differences(use, kernels, layer):
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks(5, 4, 2)
    inputs = random_inputs(layer, picks, embed=3, hidden=5, experts=4)
    dispatch = sort_by_expert(picks, 4)

    def function(*values):
        return compute(layer, dict(zip(inputs, values, strict=True)), dispatch)

    assert torch.autograd.gradcheck(function, tuple(inputs.values()))


@KERNELS
@LAYERS
@pytest.mark.parametrize(
    "picks",
    [
        torch.zeros(0, 2, dtype=torch.int64),
        torch.tensor([[3]]),
        torch.full((9, 1), 4),
        torch.tensor([[0, 5], [5, 0], [0, 5]]),
        torch.tensor([[2, 1, 0, 5, 4, 3]] * 4),
    ],
    ids=["no_token", "one_token", "one_expert", "unused_experts", "all_experts"],
)
def test_uneven_picks(use, kernels, layer, picks):
    if len(picks):  # without tokens every device takes the same kernels
        use(kernels)
    torch.manual_seed(0)
    check(layer, random_inputs(layer, picks, torch.float32), picks, 1e-5)


@LAYERS
def test_experts_of_several_blocks(monkeypatch, layer):
    monkeypatch.setattr(_blocked, "ROWS_PER_BLOCK", 4)
    torch.manual_seed(0)
    picks = torch.cat([random_picks(30), torch.tensor([[0, 1, 2]] * 11)])
    check(layer, random_inputs(layer, picks), picks, 1e-12)


def test_blocks_below_float32_have_few_sizes():
    """Or oneDNN compiles a kernel for every number of rows."""
    counts = torch.tensor([5000, 0, 43])
    dispatch = _operators.Dispatch(torch.arange(5043), torch.arange(5043), torch.arange(5043)[:, None], counts)
    blocks = _blocked._Blocks(dispatch, torch.bfloat16)
    assert (blocks.experts, blocks.sizes) == ([0, 0, 0, 0, 0, 2, 2], [2048, 2048, 768, 128, 8, 32, 11])
    blocks = _blocked._Blocks(dispatch, torch.float32)
    assert (blocks.experts, blocks.sizes) == ([0, 0, 0, 2], [2048, 2048, 904, 43])


@pytest.mark.parametrize("kernels", ["blocked", "looped"])
def test_widths_of_all_kinds(use, kernels):
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks()
    inputs = random_inputs("mlp", picks, embed=7, hidden=5)
    inputs["w2"] = torch.randn(EXPERTS, 5, 3, dtype=torch.float64, requires_grad=True)
    inputs["b2"] = torch.randn(EXPERTS, 3, dtype=torch.float64, requires_grad=True)
    check("mlp", inputs, picks, 1e-12)


@KERNELS
@LAYERS
def test_expanded_gradients_and_strided_inputs(use, kernels, layer):
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks()
    inputs = random_inputs(layer, picks, torch.float32)
    first = next(iter(inputs))
    strided = torch.randn(*inputs[first].shape[:-1], 2 * inputs[first].shape[-1])[..., ::2]
    assert not strided.is_contiguous()
    inputs[first] = strided.requires_grad_()
    check(layer, inputs, picks, 1e-5, grad=torch.ones(()))


@KERNELS
@pytest.mark.parametrize(
    "frozen", [["x"], ["gates"], ["w1", "b1", "w2", "b2"], ["x", "w1", "b1"], ["x", "gates", "w2"]]
)
def test_what_is_frozen_gets_no_gradient(use, kernels, frozen):
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks()
    inputs = random_inputs("mlp", picks, torch.float32)
    for name in frozen:
        inputs[name].requires_grad_(False)
    check("mlp", inputs, picks, 1e-5)


@KERNELS
@pytest.mark.parametrize(
    ("layer", "trained"), [("project", "x"), ("project", "w"), ("project", "b")] + [("combine", n) for n in "awb"]
)
def test_one_trained_input(use, kernels, layer, trained):
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks()
    inputs = random_inputs(layer, picks, torch.float32)
    for name in inputs:
        inputs[name].requires_grad_(name == trained)
    check(layer, inputs, picks, 1e-5)


@KERNELS
@LAYERS
def test_two_runs_are_equal_to_the_bit(use, kernels, layer):
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks(200)
    inputs = random_inputs(layer, picks, torch.float32)
    outputs = []
    for _ in range(2):
        y = compute(layer, inputs, sort_by_expert(picks, EXPERTS))
        outputs.append([y, *torch.autograd.grad(y.square().sum(), list(inputs.values()))])
    assert all(torch.equal(one, two) for one, two in zip(*outputs, strict=True))
