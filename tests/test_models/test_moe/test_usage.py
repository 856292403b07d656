"""Tests of the running statistics and of the mutual-information loss, against the closed form in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe import LayerExperts, MoEBackbone, MoEMLP
from mtadapt.models.moe.usage import ExpertUsage, Record, entropy, mutual_information_loss, update_usage

TASKS = ("cls", "det", "sem_seg")


class Network(MoEBackbone):
    """Two layers with experts, which is what the statistics see of a backbone."""

    def __init__(self, tasks=TASKS, num_experts=(6, 4), **mutual_information):
        super().__init__()
        self.set_tasks(tasks, mutual_information)
        torch.manual_seed(0)
        self.layers = nn.ModuleList([MoEMLP(16, 8, LayerExperts((number,), 2), tasks) for number in num_experts])
        for layer in self.layers:
            for router in layer.routers.values():
                nn.init.normal_(router[2].weight, std=5)

    def forward(self, x, routes=None):
        routes = self.begin(x, routes)
        for layer in self.layers:
            x = layer(x, routes, x)
        self.finish(routes)
        return x

    def step(self, *passes):
        """A training step of several forward passes."""
        with self.collecting():
            for x, routes in passes:
                self(x, routes)
        return self.routing_statistics()


def closed_form(p):
    """Mutual information of T equally probable tasks and E experts, from P(e|t)."""
    joint = p.double() / len(p)
    expert = joint.sum(0)
    return sum(
        joint[t, e] * torch.log(joint[t, e] / (expert[e] / len(p)))
        for t in range(len(p))
        for e in range(p.shape[1])
        if joint[t, e] > 0
    )


def probabilities(layer, x, task):
    first, _, last = layer.routers[task]
    return last(nn.functional.gelu(first(x))).softmax(-1)


def test_value_and_gradient_are_those_of_the_closed_form_when_all_tasks_are_present():
    network = Network(momentum=0.0, weight=1.0, num_experts=(6,))
    x = torch.randn(6, 5, 16, requires_grad=True)
    tasks = ["cls", "det", "sem_seg", "sem_seg", "det", "cls"]
    network.train()
    statistics = network.step((x, tasks))

    layer = network.layers[0]
    p = [
        probabilities(layer, x[[row for row, each in enumerate(tasks) if each == task]], task).mean((0, 1))
        for task in TASKS
    ]
    expected = -closed_form(torch.stack(p))
    assert expected < -0.01
    torch.testing.assert_close(statistics["loss_mutual_information"].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(statistics["mutual_information"].double(), -expected, rtol=1e-5, atol=1e-6)
    parameters = [x, *layer.routers.parameters()]
    found = torch.autograd.grad(statistics["loss_mutual_information"], parameters)
    wanted = torch.autograd.grad(expected, parameters)
    for grad, wanted_grad in zip(found, wanted, strict=True):
        torch.testing.assert_close(grad, wanted_grad, rtol=1e-4, atol=1e-7)
    assert max(grad.abs().max() for grad in found[1:]) > 1e-3


def test_statistics_over_steps_of_one_task():
    network = Network(momentum=0.75, weight=1.0)
    layer = network.layers[0]
    expected = {}
    for step, task in enumerate(["cls", "det", "cls", "cls"]):
        x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(step))
        network.step((x, task))
        p = probabilities(layer, x, task).mean((0, 1))
        old = expected.get(task)
        expected[task] = p if old is None else 0.75 * old + 0.25 * p
    torch.testing.assert_close(layer.usage.probability[0], expected["cls"])
    torch.testing.assert_close(layer.usage.probability[1], expected["det"])
    assert layer.usage.updates.tolist() == [3, 1, 0]
    assert not layer.usage.probability[2].any() and not layer.usage.load[2].any()
    torch.testing.assert_close(layer.usage.load.sum(1), torch.tensor([1.0, 1.0, 0.0]))


def test_tasks_that_were_not_seen_are_left_out():
    network = Network(weight=1.0, num_experts=(6,))
    assert network.step((torch.randn(2, 3, 16), "cls"))["mutual_information"].item() == pytest.approx(0, abs=1e-6)
    assert network.step((torch.randn(2, 3, 16), "det"))["mutual_information"].item() > 0
    assert network.layers[0].usage.probability[:2].sum().item() == pytest.approx(2)


def test_load_counts_the_picks():
    network = Network(momentum=0.0, num_experts=(6,))
    x = torch.randn(2, 3, 16)
    network.step((x, ["cls", "det"]))
    for row, task in enumerate(["cls", "det"]):
        picks = probabilities(network.layers[0], x[row], task).topk(2).indices.flatten()
        torch.testing.assert_close(network.layers[0].usage.load[row], torch.bincount(picks, minlength=6) / 6)


def test_several_passes_are_one_step():
    x = torch.randn(3, 4, 16)
    together, apart = Network(momentum=0.0, weight=1.0), Network(momentum=0.0, weight=1.0)
    one = together.step((x, ["cls", "det", "det"]))
    other = apart.step((x[:1], "cls"), (x[1:], "det"))
    for name in one:
        torch.testing.assert_close(one[name], other[name])
    for layer, same in zip(together.layers, apart.layers, strict=True):
        torch.testing.assert_close(layer.usage.load, same.usage.load)


def test_sharp_and_different_use_has_the_largest_information():
    running = torch.eye(3)[None]
    updates = torch.ones(1, 3)
    loss = mutual_information_loss(torch.zeros_like(running), running, updates)
    assert loss.item() == pytest.approx(-math.log(3))
    equal = torch.full((1, 3, 3), 1 / 3)
    assert mutual_information_loss(torch.zeros_like(equal), equal, updates).item() == pytest.approx(0, abs=1e-6)


def test_entropy():
    p = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    torch.testing.assert_close(entropy(p), torch.tensor([math.log(2), 0.0]))


def test_nothing_is_recorded_without_training():
    network = Network()
    network.eval()
    assert network.step((torch.randn(1, 2, 16), "det")) == {}
    network.train()
    with torch.no_grad():
        assert network.step((torch.randn(1, 2, 16), "det")) == {}
    assert not any(layer.usage.updates.any() for layer in network.layers)


def test_one_task_has_statistics_but_no_loss():
    network = Network(tasks=("det",), momentum=0.0, weight=1.0)
    network(torch.randn(1, 2, 16))
    assert network.layers[0].usage.updates.tolist() == [1]
    assert network.routing_statistics() == {}


def test_passes_outside_of_a_step_are_forgotten():
    network = Network()
    network(torch.randn(1, 2, 16), "det")
    assert network.routing_statistics() == {}
    with network.collecting():
        network(torch.randn(1, 2, 16), "det")
    # A head raised, and the statistics of the step were not asked for.
    network.step((torch.randn(1, 2, 16), "cls"))
    assert network.layers[0].usage.updates.tolist() == [1, 0, 0]


def test_recomputation_is_not_recorded():
    network = Network(momentum=0.0)
    x = torch.randn(2, 3, 16)
    with network.collecting():
        routes = network.begin(x, "det")
        network.layers[0](x, routes)
        network.finish(routes)
        network.layers[1](x, routes)
    assert [*routes.records] == [network.layers[0].usage]
    network.routing_statistics()
    assert network.layers[0].usage.updates.tolist() == [0, 1, 0] and not network.layers[1].usage.updates.any()


def test_statistics_are_saved():
    network = Network()
    network.step((torch.randn(2, 3, 16), "det"))
    other = Network()
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.layers[1].usage.probability, network.layers[1].usage.probability)
    assert other.layers[1].usage.updates.tolist() == [0, 1, 0]


def test_processes_are_added(monkeypatch):
    """Two processes with other tasks and numbers of tokens, whose sums the call would add."""
    usages = [ExpertUsage(2, 3), ExpertUsage(2, 3)]
    own = Record(torch.tensor([[1.0, 2.0, 3.0], [0, 0, 0]], requires_grad=True), torch.tensor([[4.0, 4, 4], [0, 0, 0]]),
                 torch.tensor([6.0, 0]))  # fmt: skip
    other = torch.tensor([[[2.0, 0, 0, 1, 2, 1, 2], [1, 1, 2, 4, 4, 0, 4]]]).expand(2, 2, 7)

    def add(data, op):
        assert op == "sum" and data.shape == other.shape
        data += other

    monkeypatch.setattr("mtadapt.models.moe.usage.all_reduce", add)
    monkeypatch.setattr("mtadapt.models.moe.usage.get_world_size", lambda: 2)
    current, running = update_usage(usages, [[own, own]], momentum=0.9)
    mean = torch.tensor([[3.0, 2, 3], [2, 2, 4]]) / 8
    torch.testing.assert_close(running, mean.expand(2, 2, 3))
    torch.testing.assert_close(usages[0].load, torch.tensor([[5.0, 6, 5], [8, 8, 0]]) / 16)
    # The gradients of two processes are averaged: each contributes twice its part of the mean.
    torch.testing.assert_close(current[0, 0], 2 * torch.tensor([1.0, 2, 3]) / 8)


@pytest.mark.parametrize(
    ("tasks", "settings", "message"),
    [
        ("det", {}, "write a list with the names of the tasks"),
        ((), {}, "write a list with the names of the tasks"),
        ((1, 2), {}, "write a list with the names of the tasks"),
        (("a.b", "det"), {}, "write a list with the names of the tasks"),
        (("keys", "det"), {}, "no name that a dictionary has"),
        (("det",), dict(weight="a"), "write a weight from 0"),
        (("det",), dict(weight=float("nan")), "write a weight from 0"),
        (("det", "det"), {}, "each once"),
        (("det",), dict(wight=1), "mutual_information has no wight; known: weight, momentum"),
        (("det",), dict(weight=-1), "weight=-1"),
        (("det",), dict(momentum=1.0), "momentum=1.0"),
    ],
)
def test_mistakes(tasks, settings, message):
    with pytest.raises(MTAdaptError, match=f"Network: .*{message}"):
        Network(tasks, **settings)
