"""Tests of the layers with experts, against a float64 reference that computes every expert for every token."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe import LayerExperts, MoEAttention, MoEMLP, Routes
from tests.test_models.test_moe import reference

TASKS = ("cls", "det", "sem_seg")


def mlp_layer(banks=(6,), top_k=2, tasks=TASKS, task_banks=None):
    torch.manual_seed(0)
    return random_routers(MoEMLP(16, 8, LayerExperts(banks, top_k), tasks, task_banks))


def attention_layer(banks=(6,), top_k=2, tasks=TASKS, task_banks=None):
    torch.manual_seed(0)
    return random_routers(MoEAttention(16, 8, LayerExperts(banks, top_k), tasks, task_banks))


def random_routers(layer):
    """Routers as after some training: at the start all of them say the same."""
    for router in layer.routers.values():
        nn.init.normal_(router[2].weight)
        nn.init.normal_(router[2].bias)
    return layer


LAYERS = pytest.mark.parametrize(
    ("make", "expected"), [(mlp_layer, reference.mlp), (attention_layer, reference.attention)], ids=["mlp", "attention"]
)
ROUTES = pytest.mark.parametrize(
    "routes",
    ["det", ["cls", "sem_seg", "det"], [{"det": 0.25, "cls": 0.75}, "det", {"cls": 0.5, "sem_seg": 0.5}]],
    ids=["one_task", "several_tasks", "mixtures"],
)


def run(layer, x, routes):
    return layer(x, Routes.build(routes, TASKS, len(x), x.device))


def as_shares(routes, number):
    each = [routes] * number if isinstance(routes, str) else routes
    return [{route: 1.0} if isinstance(route, str) else route for route in each]


@LAYERS
@ROUTES
@pytest.mark.parametrize(
    ("banks", "task_banks"), [((6,), {}), ((4, 3), {}), ((4, 3), dict(cls=1, det=1))], ids=["bank", "banks", "old_new"]
)
def test_output_and_gradients_are_those_of_the_reference(make, expected, routes, banks, task_banks):
    layer = make(banks, task_banks=task_banks)
    x = torch.randn(3, 5, 16, requires_grad=True)
    wanted = expected(layer, x, as_shares(routes, 3))
    found = run(layer, x, routes)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)

    weight = torch.randn(3, 5, 16)
    parameters = [x, *(each for each in layer.parameters())]
    wanted_grads = torch.autograd.grad((wanted * weight).sum(), parameters, allow_unused=True)
    grads = torch.autograd.grad((found * weight).sum(), parameters, allow_unused=True)
    for grad, wanted_grad in zip(grads, wanted_grads, strict=True):
        zero = torch.zeros(())
        torch.testing.assert_close(
            zero.expand(1) if grad is None else grad.float(),
            zero.expand(1) if wanted_grad is None else wanted_grad.float(),
            rtol=1e-3,
            atol=1e-5,
        ) if grad is not None and wanted_grad is not None else _all_zero(grad, wanted_grad)


def _all_zero(*grads):
    assert all(grad is None or not grad.any() for grad in grads)


@LAYERS
def test_all_experts_of_one_task_are_a_dense_mixture(make, expected):
    layer = make(banks=(4,), top_k=4, tasks=("det",))
    x = torch.randn(2, 3, 16)
    routes = Routes.build(None, ("det",), 2, x.device)
    torch.testing.assert_close(layer(x, routes).double(), expected(layer, x, [{"det": 1.0}] * 2), rtol=1e-4, atol=1e-5)


@LAYERS
def test_routers_start_undecided_and_take_the_first_experts(make, expected):
    layer = make()
    for router in layer.routers.values():
        router.init_weights()
    x = torch.randn(2, 3, 16)
    gates, dispatch = layer.route(x, Routes.build("cls", TASKS, 2, x.device))
    assert torch.equal(gates, torch.full((6, 2), 1 / 6))
    assert dispatch.counts.tolist() == [6, 6, 0, 0, 0, 0]


@LAYERS
def test_new_experts_change_no_bit_of_an_old_task(make, expected):
    layer, extended = make((4,), tasks=("cls", "det")), make((4, 3), task_banks=dict(cls=1, det=1))
    state = {**extended.state_dict(), **{k: v for k, v in layer.state_dict().items() if not k.startswith("usage.")}}
    extended.load_state_dict(state)
    x = torch.randn(2, 5, 16)
    old = layer(x, Routes.build("det", ("cls", "det"), 2, x.device))
    assert torch.equal(run(extended, x, "det"), old)
    assert not torch.allclose(run(extended, x, "sem_seg"), old)


def test_identity_is_added_after_stochastic_depth():
    torch.manual_seed(0)
    layer = MoEMLP(16, 8, LayerExperts((4,), 2), ("det",), dropout_layer=dict(type="DropPath", drop_prob=0.5)).train()
    x = torch.randn(64, 3, 16)
    routes = Routes.build(None, ("det",), 64, x.device)
    out = layer(x, routes, x) - x
    kept = out.flatten(1).abs().sum(1) > 1e-6
    assert 15 < kept.sum() < 49
    layer.eval()
    torch.testing.assert_close(out[kept], 2 * (layer(x, routes, x) - x)[kept])


def test_attention_in_windows_is_attention_in_each():
    layer = attention_layer()
    x = torch.randn(2, 12, 16)

    def partition(y):
        return y.reshape(6, 4, -1)

    def reverse(y):
        return y.reshape(2, 12, -1)

    out = layer(x, Routes.build("det", TASKS, 2, x.device), partition, reverse)
    alone = layer(x.reshape(6, 4, 16), Routes.build("det", TASKS, 6, x.device))
    torch.testing.assert_close(out.reshape(6, 4, 16), alone)


def test_masked_keys_are_not_attended():
    layer = attention_layer()
    x = torch.randn(1, 5, 16)
    mask = torch.tensor([[[[True, True, True, False, False]]]])
    out = layer(x, Routes.build("det", TASKS, 1, x.device), lambda y: y, lambda y: y, mask)
    shorter = layer(x[:, :3], Routes.build("det", TASKS, 1, x.device))
    torch.testing.assert_close(out[:, :3], shorter)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@LAYERS
def test_autocast(make, expected, dtype):
    layer = make()
    x = torch.randn(3, 5, 16)
    with torch.autocast("cpu", dtype=dtype):
        out = run(layer, x, ["cls", "det", "sem_seg"])
    assert out.dtype == dtype
    # Rounding changes a choice here and there; most outputs stay.
    close = torch.isclose(out.double(), expected(layer, x, as_shares(list(TASKS), 3)), rtol=0.05, atol=0.05)
    assert close.float().mean() > 0.8


def test_experts_that_a_router_cannot_see():
    with pytest.raises(MTAdaptError, match=r"task_banks\['det'\]=1: 1 experts, but MoEMLP has top_k=2"):
        mlp_layer((1, 4), task_banks=dict(det=1))
    with pytest.raises(MTAdaptError, match="task_banks of unknown task 'depth'"):
        mlp_layer((4, 4), task_banks=dict(depth=1))
    with pytest.raises(MTAdaptError, match=r"task_banks\['det'\]=3; MoEMLP has 2 bank"):
        mlp_layer((4, 4), task_banks=dict(det=3))


@LAYERS
@pytest.mark.parametrize("tasks", [("det", "cls", "sem_seg"), ("cls", "det", "drivable")], ids=["order", "names"])
def test_checkpoint_with_other_tasks(make, expected, tasks):
    """The rows of the statistics would be those of other tasks."""
    state = make(tasks=tasks).state_dict()
    with pytest.raises(MTAdaptError, match=f"routers of {', '.join(tasks)}, the config of cls, det, sem_seg; write"):
        make().load_state_dict(state)


@LAYERS
@pytest.mark.parametrize(("banks", "text"), [((8,), "8"), ((6, 2), r"6 \+ 2")])
def test_checkpoint_with_other_experts(make, expected, banks, text):
    model = nn.ModuleDict(dict(ffn=make((6,))))
    state = nn.ModuleDict(dict(ffn=make(banks))).state_dict()
    with pytest.raises(MTAdaptError, match=f"ffn: the checkpoint has {text} experts, the config 6; set num_experts"):
        model.load_state_dict(state)
