"""Tests of the layers of experts as operators of torch: autocast, memory, FLOPs, compilation, choice of kernels."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mtadapt.models.moe import _blocked, _operators
from mtadapt.models.moe.dispatch import expert_mlp, sort_by_expert
from tests.test_models.test_moe.masked import (
    DTYPES,
    EMBED,
    EXPERTS,
    HIDDEN,
    KERNELS,
    LAYERS,
    TOKENS,
    TOP_K,
    assert_close,
    check,
    compute,
    expected,
    random_inputs,
    random_picks,
)


def test_a_gpu_without_tokens_takes_kernels_that_need_none():
    assert _operators.choose_kernels(torch.empty(0, 8, device="meta"), torch.empty(2, 8, 8)) is _blocked


@pytest.mark.parametrize(
    ("dtype", "width", "served"),
    [
        (torch.float32, 16, True),
        (torch.float32, 18, False),
        (torch.bfloat16, 24, True),
        (torch.bfloat16, 20, False),
        (torch.float64, 16, False),
    ],
)
def test_grouped_products_are_used_where_they_apply(dtype, width, served):
    x, w = torch.zeros(4, width, dtype=dtype), torch.zeros(2, width, 8, dtype=dtype)
    assert _operators.GroupedProducts.serve(x, w) is served


@KERNELS
@LAYERS
def test_autocast(use, kernels, layer):
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks()
    inputs = random_inputs(layer, picks, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = compute(layer, inputs, sort_by_expert(picks, EXPERTS))
        assert y.dtype == torch.bfloat16
        check(layer, inputs, picks, DTYPES[torch.bfloat16])  # with the backward under autocast too
    grads = torch.autograd.grad(y.float().sum(), list(inputs.values()))
    truth = torch.autograd.grad(expected(layer, inputs, picks).sum(), list(inputs.values()))
    for one, two in zip(grads, truth, strict=True):
        assert one.dtype == torch.float32
        assert_close(one, two, DTYPES[torch.bfloat16])


@KERNELS
def test_float32_layers_differentiated_under_autocast(use, kernels):
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks()
    inputs = random_inputs("mlp", picks, torch.float32)
    y = compute("mlp", inputs, sort_by_expert(picks, EXPERTS))
    truth = torch.autograd.grad(expected("mlp", inputs, picks).sum(), list(inputs.values()))
    with torch.autocast("cpu", torch.bfloat16):
        grads = torch.autograd.grad(y.sum(), list(inputs.values()))
    for one, two in zip(grads, truth, strict=True):
        assert_close(one, two, 1e-5)


@KERNELS
def test_nothing_grows_with_the_number_of_experts(use, kernels):
    use(kernels)
    saved = {}
    for experts in (4, 64):
        picks = random_picks(100, experts, 2)
        inputs = random_inputs("mlp", picks, torch.float32, experts=experts)
        parameters = {inputs[name].untyped_storage().data_ptr() for name in ("w1", "b1", "w2", "b2")}
        sizes = {}

        def pack(tensor, sizes=sizes, parameters=parameters):
            if tensor.untyped_storage().data_ptr() not in parameters:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        dispatch = sort_by_expert(picks, experts)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            compute("mlp", inputs, dispatch)
        saved[experts] = sum(sizes.values()) - 8 * experts  # but for the counts
    tokens, rows = 100, 200
    floats = tokens * EMBED + rows + rows * HIDDEN
    assert saved == dict.fromkeys((4, 64), 4 * floats + 8 * 3 * rows)


def test_inference_saves_nothing():
    picks = random_picks()
    inputs = list(random_inputs("mlp", picks, torch.float32).values())
    x, gates, *weights = inputs
    dispatch = sort_by_expert(picks, EXPERTS)
    y, hidden = torch.ops.mtadapt.expert_mlp(x, gates, *dispatch, *weights, False)
    assert hidden.numel() == 0
    with torch.no_grad():
        assert torch.equal(expert_mlp(x, gates, dispatch, *weights), y)


@KERNELS
@pytest.mark.parametrize(
    ("layer", "frozen", "forward", "backward"),
    [
        ("mlp", [], 2, 4),
        ("mlp", ["w1", "b1", "w2", "b2"], 2, 2),
        ("mlp", ["x"], 2, 3),
        ("mlp", ["x", "w1", "b1", "w2", "b2"], 2, 1),
        ("mlp", ["x", "gates", "w1", "b1"], 2, 1),
        ("project", [], 1, 2),
        ("project", ["x"], 1, 1),
        ("combine", [], 1, 2),
        ("combine", ["a", "gates"], 1, 1),
    ],
)
def test_flops_are_those_of_the_picked_experts(use, kernels, layer, frozen, forward, backward):
    use(kernels)
    picks = random_picks()
    inputs = random_inputs(layer, picks, torch.float32)
    for name in frozen:
        inputs[name].requires_grad_(False)
    product = 2 * TOKENS * TOP_K * EMBED * HIDDEN
    with FlopCounterMode(display=False) as counter:
        y = compute(layer, inputs, sort_by_expert(picks, EXPERTS))
    assert counter.get_total_flops() == forward * product
    with FlopCounterMode(display=False) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == backward * product


@LAYERS
def test_operators_have_right_shapes_and_derivatives_for_compilers(layer):
    picks = random_picks()
    inputs = list(random_inputs(layer, picks, torch.float32).values())
    first = 1 if layer == "project" else 2
    args = [*inputs[:first], *sort_by_expert(picks, EXPERTS), *inputs[first:]] + [True] * (layer == "mlp")
    checks = ["test_schema", "test_autograd_registration", "test_faketensor"]
    torch.library.opcheck(torch.ops.mtadapt.sort_by_expert.default, (picks, EXPERTS), test_utils=checks)
    torch.library.opcheck(getattr(torch.ops.mtadapt, f"expert_{layer}").default, args, test_utils=checks)


@LAYERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiled_as_one_graph(layer, dtype):
    torch.manual_seed(0)
    picks = random_picks()
    inputs = random_inputs(layer, picks, torch.float32)

    def function(picks, *values):
        return compute(layer, dict(zip(inputs, values, strict=True)), sort_by_expert(picks, EXPERTS))

    torch._dynamo.reset()
    compiled = torch.compile(function, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        pairs = [each(picks, *inputs.values()) for each in (function, compiled)]
    assert pairs[0].dtype == dtype
    results = [[y, *torch.autograd.grad(y.sum(), list(inputs.values()))] for y in pairs]
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_grouped_products_do_not_wait_for_the_host():
    kernels = _operators.KERNELS["grouped"]
    with FakeTensorMode(), torch.device("cuda"):  # an error where a value would be read on the host
        dispatch = sort_by_expert(torch.zeros(TOKENS, TOP_K, dtype=torch.int64), EXPERTS)
        gates = torch.zeros(TOKENS, TOP_K)
        x, w1, b1, w2, b2 = (
            torch.zeros(shape, dtype=torch.bfloat16)
            for shape in ((TOKENS, 16), (EXPERTS, 16, 8), (EXPERTS, 8), (EXPERTS, 8, 16), (EXPERTS, 16))
        )
        y, hidden = kernels.mlp(x, gates, dispatch, w1, b1, w2, b2, True)
        found = [y, *kernels.mlp_backward(y, x, gates, dispatch, w1, w2, b2, hidden, [True] * 6)]
        a = kernels.project(x, dispatch, w1, b1)
        found += [a, *kernels.project_backward(a, x, dispatch, w1, [True] * 3)]
        y = kernels.combine(a, gates, dispatch, w2, b2)
        found += [y, *kernels.combine_backward(y, a, gates, dispatch, w2, b2, [True] * 4)]
    wanted = [x, x, gates, w1, b1, w2, b2] + [a, x, w1, b1] + [x, a, gates, w2, b2]
    assert [(each.shape, each.dtype, each.device.type) for each in found] == [
        (each.shape, each.dtype, "cuda") for each in wanted
    ]


@pytest.mark.parametrize(
    ("dtype", "capability", "kernels"),
    [(torch.bfloat16, (9, 0), "grouped"), (torch.bfloat16, (7, 5), "looped"), (torch.float32, (9, 0), "looped")],
)
def test_a_gpu_groups_the_products_where_that_does_not_wait(monkeypatch, dtype, capability, kernels):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    with FakeTensorMode(), torch.device("cuda"):
        found = _operators.choose_kernels(torch.zeros(4, 16, dtype=dtype), torch.zeros(2, 16, 8, dtype=dtype))
    assert found is _operators.KERNELS[kernels]


def test_a_loop_waits_for_the_host():
    with FakeTensorMode(), torch.device("cuda"), pytest.raises(DataDependentOutputException):
        _operators.LoopedProducts(sort_by_expert(torch.zeros(2, 1, dtype=torch.int64), 4))
