"""Tests of the dispatch of tokens to experts, against every expert computed for every token in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from mtadapt.models.moe import _blocked, _operators
from mtadapt.models.moe.dispatch import expert_combine, expert_mlp, expert_project, sort_by_expert

TOKENS, EMBED, HIDDEN, EXPERTS, TOP_K = 21, 16, 8, 6, 3
DTYPES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 4e-3}

KERNELS = pytest.mark.parametrize("kernels", ["blocked", "grouped", "looped"])
LAYERS = pytest.mark.parametrize("layer", ["mlp", "project", "combine"])


@pytest.fixture
def use(monkeypatch):
    """Compute with kernels by their name, also those that a GPU uses."""
    return lambda kernels: monkeypatch.setattr(_operators, "choose_kernels", lambda *_: _operators.KERNELS[kernels])


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


def test_a_gpu_without_tokens_takes_kernels_that_need_none():
    assert _operators.choose_kernels(torch.empty(0, 8, device="meta"), torch.empty(2, 8, 8)) is _blocked


@LAYERS
def test_experts_of_several_blocks(monkeypatch, layer):
    monkeypatch.setattr(_blocked, "ROWS_PER_BLOCK", 4)
    torch.manual_seed(0)
    picks = torch.cat([random_picks(30), torch.tensor([[0, 1, 2]] * 11)])
    check(layer, random_inputs(layer, picks), picks, 1e-12)


@pytest.mark.parametrize("kernels", ["blocked", "looped"])
def test_widths_of_all_kinds(use, kernels):
    use(kernels)
    torch.manual_seed(0)
    picks = random_picks()
    inputs = random_inputs("mlp", picks, embed=7, hidden=5)
    inputs["w2"] = torch.randn(EXPERTS, 5, 3, dtype=torch.float64, requires_grad=True)
    inputs["b2"] = torch.randn(EXPERTS, 3, dtype=torch.float64, requires_grad=True)
    check("mlp", inputs, picks, 1e-12)


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


def test_a_loop_waits_for_the_host():
    with FakeTensorMode(), torch.device("cuda"), pytest.raises(DataDependentOutputException):
        _operators.LoopedProducts(sort_by_expert(torch.zeros(2, 1, dtype=torch.int64), 4))
