"""Loss balancers against the papers' algorithms written plainly."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models import DWA, GradNorm, UncertaintyWeighting
from mtadapt.models.losses.balancing import LossBalancer, absent_tasks, common_loss, task_totals
from tests.test_engine.tiny import two_processes

TASKS = ("a", "b", "c")


def losses_of(values: dict[str, float | Tensor], absent: Sequence[str] = ()) -> dict[str, Tensor | list[Tensor]]:
    """Losses as the model names them: one third of a task's loss in a list of two levels, one value not reduced."""
    losses: dict[str, Tensor | list[Tensor]] = {}
    for name, value in values.items():
        value = torch.as_tensor(value)
        losses[f"{name}.loss_cls"] = [value / 6, value / 6]
        losses[f"{name}.loss_box"] = torch.stack([value * 2 / 3, value * 2 / 3])
        losses[f"{name}.acc"] = torch.tensor(50.0)
    for name in absent:
        losses[f"{name}.loss_absent"] = torch.tensor(0.0)
    return losses


def test_losses_by_task():
    losses = losses_of(dict(a=3.0, b=6.0), absent=["c"])
    totals = task_totals(losses)
    assert {name: round(float(total), 5) for name, total in totals.items()} == dict(a=3.0, b=6.0, c=0.0)
    assert absent_tasks(losses) == {"c"}
    assert common_loss(losses) is None


def test_losses_of_no_task():
    """They are kept apart from the tasks, and no balancer weights them."""
    own = {
        "routing.loss_a": torch.tensor(2.0),
        "routing.loss_b": torch.tensor([1.0, 3.0]),
        "routing.load": torch.ones(1),
    }
    losses = {**losses_of(dict(a=3.0), absent=["c"]), **own}
    assert [*task_totals(losses)] == ["a", "c"] and common_loss(losses) == 4.0
    balanced = Fixed(TASKS)(losses, [])
    assert all(balanced[name] is value for name, value in own.items())


class Fixed(LossBalancer):
    def weigh(self, present: dict[str, Tensor], features: Sequence[Tensor]) -> dict[str, Tensor]:
        assert [*present] == ["a"]
        return dict(a=torch.tensor(0.5), c=torch.tensor(9.0))


def test_weights_multiply_losses_and_no_statistics():
    losses = losses_of(dict(a=3.0), absent=["c"])
    balanced = Fixed(TASKS)(losses, [])
    assert [*balanced] == ["a.loss_cls", "a.loss_box", "a.acc", "c.loss_absent", "a.weight"]
    assert [float(level) for level in balanced["a.loss_cls"]] == [0.25, 0.25]
    assert balanced["a.loss_box"].tolist() == [1.0, 1.0]
    assert (float(balanced["a.acc"]), float(balanced["a.weight"])) == (50.0, 0.5)


# Uncertainty


def test_uncertainty_is_the_papers_objective():
    balancer = UncertaintyWeighting(TASKS, kinds=dict(b="regression"))
    for name, value in dict(a=0.3, b=-0.7, c=1.1).items():
        nn.init.constant_(balancer.log_variances[name], value)
    totals = task_totals(balancer(losses_of(dict(a=2.0, b=3.0, c=5.0)), []))
    # With sigma, as the paper writes it: L / sigma^2 + log sigma, and L / (2 sigma^2) + log sigma.
    for name, value, loss, factor in (("a", 0.3, 2.0, 1), ("b", -0.7, 3.0, 2), ("c", 1.1, 5.0, 1)):
        sigma = math.exp(value / 2)
        assert totals[name].item() == pytest.approx(loss / (factor * sigma**2) + math.log(sigma), rel=1e-5)


def test_uncertainty_learns_the_size_of_the_losses():
    """The minimum over s of exp(-s) L + s / 2 is log 2L, in regression log L."""
    balancer = UncertaintyWeighting(TASKS, kinds=dict(b="regression"))
    optimizer = torch.optim.SGD(balancer.parameters(), lr=0.5)
    for _ in range(300):
        optimizer.zero_grad()
        sum(task_totals(balancer(losses_of(dict(a=2.0, b=3.0), absent=["c"]), [])).values()).backward()
        # A task without labels moves nothing, but has a gradient.
        assert balancer.log_variances["c"].grad.item() == 0
        optimizer.step()
    learned = {name: value.item() for name, value in balancer.log_variances.items()}
    assert learned == pytest.approx(dict(a=math.log(4.0), b=math.log(3.0), c=0.0), abs=1e-4)


# Dynamic weight average


def dwa_loops(history: list[dict[str, float]], interval: int, temperature: float) -> list[dict[str, float]]:
    """Weights at each iteration: averages of whole windows, a ratio for each task, their softmax."""
    weights, averages, ratios = [], [], dict.fromkeys(TASKS, 1.0)
    for iteration in range(len(history)):
        if iteration and iteration % interval == 0:
            window = history[iteration - interval : iteration]
            average = {}
            for task in TASKS:
                seen = [losses[task] for losses in window if task in losses]
                before = [known[task] for known in averages if task in known]
                if seen:
                    average[task] = sum(seen) / len(seen)
                    if before:
                        ratios[task] = average[task] / before[-1]
            averages.append(average)
        exponents = {task: math.exp(ratios[task] / temperature) for task in TASKS}
        weights.append({task: len(TASKS) * exponents[task] / sum(exponents.values()) for task in TASKS})
    return weights


def random_history(length: int, drop: float = 0.3) -> list[dict[str, float]]:
    """Losses that fall at different rates, each task missing in some batches, one in a whole window."""
    generator = np.random.default_rng(2)
    history = []
    for iteration in range(length):
        losses = {
            task: 10 * math.exp(-rate * iteration) * generator.uniform(0.5, 1.5)
            for task, rate in zip(TASKS, (0.02, 0.1, 0.3), strict=True)
            if generator.uniform() > drop and not (task == "b" and 8 <= iteration < 12)
        }
        history.append(losses or dict(a=1.0))
    return history


def run(balancer: LossBalancer, history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Weights of the tasks that are in each batch."""
    found = []
    for losses in history:
        balanced = balancer(losses_of(losses, absent=[task for task in TASKS if task not in losses]), [])
        found.append({task: float(balanced[f"{task}.weight"]) for task in losses})
    return found


def test_dwa_equals_the_loops():
    history = random_history(24)
    expected = dwa_loops(history, interval=4, temperature=2.0)
    for found, weights in zip(run(DWA(TASKS, interval=4), history), expected, strict=True):
        assert found == pytest.approx({task: weights[task] for task in found}, rel=1e-4)
    assert max(expected[-1].values()) > 1.05
    assert [*expected[7].values()] == pytest.approx([1, 1, 1])


def test_dwa_resumes_inside_a_window():
    history = random_history(24)
    whole, first, second = (DWA(TASKS, interval=4) for _ in range(3))
    weights = run(whole, history)
    run(first, history[:14])
    second.load_state_dict(first.state_dict())
    assert run(second, history[14:]) == weights[14:]


def test_dwa_counts_only_finite_losses_of_training():
    clean, disturbed = DWA(TASKS, interval=2), DWA(TASKS, interval=2)
    history = random_history(8, drop=0.0)
    weights = run(clean, history)
    found = []
    for losses in history:
        disturbed.eval()
        run(disturbed, [dict(a=1e6)])
        disturbed.train()
        with torch.no_grad():
            run(disturbed, [dict(a=1e6)])
        found += run(disturbed, [losses])
    assert found == weights
    run(disturbed, [dict(a=math.nan, b=1.0, c=1.0)] * 2)
    assert disturbed.ratios.isfinite().all() and disturbed.means.isfinite().all()


def dwa_worker(rank: int, folder: str) -> None:
    balancer = DWA(TASKS, interval=2)
    history = [dict(a=4.0, b=1.0), dict(a=2.0), dict(a=1.0, b=0.5), dict(a=1.0)]
    other = [dict(a=2.0), dict(a=4.0), dict(a=3.0), dict(a=3.0, b=1.5)]
    run(balancer, (history, other)[rank])
    torch.save(balancer.state_dict(), f"{folder}/{rank}.pth")


def test_dwa_averages_over_processes(tmp_path: Path):
    two_processes(dwa_worker, tmp_path, str(tmp_path))
    for rank in range(2):
        state = torch.load(tmp_path / f"{rank}.pth")
        # a: (4 + 2 + 2 + 4) / 4 = 3, then (1 + 1 + 3 + 3) / 4 = 2; b: 1, then (0.5 + 1.5) / 2 = 1.
        assert state["ratios"].tolist() == pytest.approx([2 / 3, 1.0, 1.0])


# GradNorm


class Network(nn.Module):
    """Two levels of features that heads read, one of them the first level alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Linear(4, 6)
        self.second = nn.Linear(6, 5)
        self.heads = nn.ModuleDict(dict(a=nn.Linear(6, 2), b=nn.Linear(6, 2), c=nn.Linear(5, 2)))

    def features(self, inputs: Tensor) -> list[Tensor]:
        first = torch.tanh(self.trunk(inputs))
        return [first, torch.tanh(self.second(first))]

    def loss(self, task: str, features: list[Tensor], targets: Tensor) -> Tensor:
        scale = dict(a=1.0, b=30.0, c=0.1)[task]
        return scale * (self.heads[task](features[task == "c"]) - targets).pow(2).mean()


def data(number: int, size: int = 6) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 4, generator=generator), torch.randn(size, 2, generator=generator)) for _ in range(number)
    ]


def train_balanced(
    network: Network, balancer: GradNorm, parts: list, present: Sequence[Sequence[str]] | None = None
) -> list[dict[str, float]]:
    """Train; return the weights of every step."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    weights = []
    for number, (inputs, targets) in enumerate(parts):
        tasks = TASKS if present is None else present[number]
        features = network.features(inputs)
        losses = losses_of({task: network.loss(task, features, targets) for task in tasks})
        balanced = balancer(losses, features)
        weights.append({task: float(balanced[f"{task}.weight"]) for task in tasks})
        optimizer.zero_grad()
        sum(task_totals(balanced).values()).backward()
        optimizer.step()
    return weights


def gradnorm_by_autograd(network: Network, parts: list, alpha: float, lr: float) -> list[list[float]]:
    """Algorithm 1, whose loss of the weights is differentiated by autograd, through the norms of the gradients."""
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01)
    weights = nn.Parameter(torch.ones(3))
    weights_optimizer = torch.optim.Adam([weights], lr=lr)
    first, history = None, []
    for inputs, targets in parts:
        history.append(weights.tolist())
        features = network.features(inputs)
        losses = torch.stack([network.loss(task, features, targets) for task in TASKS])
        first = losses.detach() if first is None else first
        norms = []
        for number in range(3):
            gradients = torch.autograd.grad(
                weights[number] * losses[number], features, create_graph=True, retain_graph=True, allow_unused=True
            )
            norms.append(torch.cat([gradient.flatten() for gradient in gradients if gradient is not None]).norm())
        G = torch.stack(norms)
        rates = losses.detach() / first
        target = (G.mean() * (rates / rates.mean()) ** alpha).detach()
        (weights.grad,) = torch.autograd.grad((G - target).abs().sum(), weights, retain_graph=True)
        optimizer.zero_grad()
        (weights.detach() * losses).sum().backward()
        optimizer.step()
        weights_optimizer.step()
        with torch.no_grad():
            weights.clamp_(min=1e-3).mul_(3 / weights.sum())
    return history


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_gradnorm_equals_autograd(alpha: float):
    parts, network = data(20), Network()
    expected = gradnorm_by_autograd(copy.deepcopy(network), parts, alpha, lr=0.05)
    found = train_balanced(network, GradNorm(TASKS, alpha=alpha, lr=0.05), parts)
    for weights, values in zip(found, expected, strict=True):
        assert [*weights.values()] == pytest.approx(values, rel=1e-4)
    # The task with the largest gradients has lost weight, and all of them still sum to their number.
    assert expected[-1][1] < 0.7 and sum(expected[-1]) == pytest.approx(3)


def test_gradnorm_brings_the_norms_together():
    parts, network = data(1) * 400, Network()
    balancer = GradNorm(TASKS, alpha=0.0, lr=0.01)
    for parameter in network.parameters():
        parameter.requires_grad = parameter is network.trunk.weight
    network.trunk.weight.register_hook(torch.zeros_like)  # the losses stay, the weights alone move
    train_balanced(network, balancer, parts)
    norms = balancer.weights * balancer.norms
    assert float(norms.max() / norms.min()) < 1.1 and float(balancer.norms.max() / balancer.norms.min()) > 10


def test_gradnorm_of_sources_that_alternate():
    """Weights move once every task has been seen, with the last known norms of the tasks that are not in the batch."""
    network, balancer = Network(), GradNorm(TASKS, alpha=0.0, lr=0.05)
    parts = data(12)
    weights = train_balanced(network, balancer, parts, present=[(TASKS[number % 3],) for number in range(12)])
    assert [*weights[0].values(), *weights[1].values(), *weights[2].values()] == [1, 1, 1]
    assert weights[-2]["b"] < 0.9
    assert float(balancer.weights.sum()) == pytest.approx(3)


def test_gradnorm_resumes():
    parts, network, balancer = data(10), Network(), GradNorm(TASKS)
    whole = train_balanced(copy.deepcopy(network), GradNorm(TASKS), parts)
    train_balanced(network, balancer, parts[:5])
    resumed = GradNorm(TASKS)
    resumed.load_state_dict(balancer.state_dict())
    assert train_balanced(network, resumed, parts[5:]) == whole[5:]


def test_gradnorm_leaves_out_what_is_not_finite_and_evaluation():
    network, balancer = Network(), GradNorm(TASKS)
    train_balanced(network, balancer, data(3))
    before = {name: buffer.clone() for name, buffer in balancer.named_buffers()}
    features = network.features(data(1)[0][0])
    broken = losses_of(dict(a=features[0].sum() * float("nan"), b=features[0].sum() * float("inf")))
    balancer.eval()(losses_of(dict(a=features[0].sum())), features)
    with torch.no_grad():
        balancer.train()(losses_of(dict(a=torch.tensor(3.0))), [level.detach() for level in features])
    assert all(torch.equal(buffer, before[name]) for name, buffer in balancer.named_buffers())
    balancer(broken, features)
    for name in ("first", "losses", "norms"):
        assert torch.equal(getattr(balancer, name), before[name])


def test_gradnorm_in_half_precision():
    """Gradients of the features that are below the least half-precision number still count."""
    features = [torch.ones(4, 1000, dtype=torch.float16, requires_grad=True)]
    balancer = GradNorm(("a", "b"))
    balancer(losses_of(dict(a=features[0].float().sum() * 2e-8, b=features[0].float().sum() * 1e-3)), features)
    expected = torch.tensor([2e-8, 1e-3]) * math.sqrt(4000)
    torch.testing.assert_close(balancer.norms, expected, rtol=0.01, atol=0)


def gradnorm_worker(rank: int, folder: str) -> None:
    network, balancer = Network(), GradNorm(TASKS)
    for parameter in network.parameters():
        parameter.register_hook(torch.zeros_like)
    halves = [(inputs[3 * rank : 3 * rank + 3], targets[3 * rank : 3 * rank + 3]) for inputs, targets in data(4)]
    train_balanced(network, balancer, halves)
    torch.save(balancer.state_dict(), f"{folder}/{rank}.pth")


def test_gradnorm_of_two_processes_is_that_of_the_whole_batch(tmp_path: Path):
    two_processes(gradnorm_worker, tmp_path, str(tmp_path))
    network, balancer = Network(), GradNorm(TASKS)
    for parameter in network.parameters():
        parameter.register_hook(torch.zeros_like)
    train_balanced(network, balancer, data(4))
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    for name, value in balancer.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)


def test_gradnorm_needs_something_shared_that_trains():
    features = [torch.ones(2, 3)]
    with pytest.raises(MTAdaptError, match="nothing that trains is shared by all tasks"):
        GradNorm(TASKS)(losses_of(dict(a=nn.Linear(3, 1)(features[0]).sum())), features)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UncertaintyWeighting(TASKS, kinds=dict(d="regression")), r"kinds names unknown tasks \['d'\]"),
        (lambda: UncertaintyWeighting(TASKS, kinds=dict(a="poisson")), r"kinds\['a'\]='poisson' is unknown"),
        (lambda: DWA(TASKS, interval=0), "interval=0"),
        (lambda: DWA(TASKS, temperature=0.0), r"temperature=0\.0"),
        (lambda: GradNorm(TASKS, alpha=-1.0), r"alpha=-1\.0"),
        (lambda: GradNorm(TASKS, lr=0.0), r"lr=0\.0"),
    ],
)
def test_mistakes_are_named(build, message: str):
    with pytest.raises(MTAdaptError, match=message):
        build()
