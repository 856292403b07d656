"""Gradient surgery against the papers' algorithms written with vectors and loops."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS as ROOT
from scipy.optimize import minimize
from torch import Tensor
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import SGD, AdamW

from mtadapt.engine import AmpGradientSurgeryOptimWrapper, GradientSurgeryOptimWrapper, amp_variant
from mtadapt.engine.optim.gradient_surgery import cagrad_coefficients, pcgrad_coefficients
from mtadapt.errors import MTAdaptError
from tests.test_engine.tiny import TASKS, Tiny, batches, joined, task_gradients, two_processes

METHODS = ("pcgrad", "cagrad")


def pcgrad_loops(gradients: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """Algorithm 1 of Yu et al. on the gradients themselves."""
    projected = []
    for task, gradient in enumerate(gradients):
        vector = gradient.copy()
        for other in generator.permutation([number for number in range(len(gradients)) if number != task]):
            if vector @ gradients[other] < 0:
                vector = vector - vector @ gradients[other] / (gradients[other] @ gradients[other]) * gradients[other]
        projected.append(vector)
    return np.sum(projected, 0)


def cagrad_vectors(gradients: list[np.ndarray], c: float) -> np.ndarray:
    """Algorithm 1 of Liu et al. on the gradients themselves, with another solver of the dual problem."""
    G = np.array(gradients)
    mean = G.mean(0)
    radius = c * np.linalg.norm(mean)

    def dual(logits: np.ndarray) -> float:
        weights = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        return float(weights @ G @ mean + radius * np.linalg.norm(weights @ G))

    options = dict(xatol=1e-10, fatol=1e-14, maxiter=20000)
    starts = [np.zeros(len(G)), *(4 * np.eye(len(G)))]
    found = [minimize(dual, start, method="Nelder-Mead", options=options) for start in starts]
    best = min(found, key=lambda solution: solution.fun)
    weights = np.exp(best.x - best.x.max()) / np.exp(best.x - best.x.max()).sum()
    direction = mean + radius / np.linalg.norm(weights @ G) * (weights @ G)
    return len(G) * direction / (1 + c**2)


def random_gradients(tasks: int, seed: int, size: int = 40) -> list[np.ndarray]:
    """Gradients of very different lengths of which about half conflict."""
    generator = np.random.default_rng(seed)
    return [generator.normal(size=size) * 10 ** generator.uniform(-2, 2) for _ in range(tasks)]


@pytest.mark.parametrize("tasks", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_pcgrad_equals_the_loops(tasks: int, seed: int):
    gradients = random_gradients(tasks, seed)
    G = np.array(gradients)
    factors = pcgrad_coefficients(G @ G.T, np.random.default_rng(7))
    np.testing.assert_allclose(factors @ G, pcgrad_loops(gradients, np.random.default_rng(7)), rtol=1e-9, atol=1e-9)


def test_pcgrad_of_two_gradients_by_hand():
    # By hand: (1, 0) and (-1, 1): the first loses half of (-1, 1), the second its component along (1, 0).
    G = np.array([[1.0, 0.0], [-1.0, 1.0]])
    combined = pcgrad_coefficients(G @ G.T, np.random.default_rng(0)) @ G
    np.testing.assert_allclose(combined, [0.5, 1.5])
    assert (G @ combined > 0).all()


def test_pcgrad_leaves_gradients_that_agree():
    G = np.array([[1.0, 0.0], [1.0, 3.0]])
    np.testing.assert_array_equal(pcgrad_coefficients(G @ G.T, np.random.default_rng(0)), [1, 1])


@pytest.mark.parametrize("tasks", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("c", [0.2, 0.7])
def test_cagrad_equals_another_solver(tasks: int, seed: int, c: float):
    generator = np.random.default_rng(seed)
    gradients = [generator.normal(size=6) * scale for scale in generator.uniform(0.5, 2, tasks)]
    G = np.array(gradients)
    expected = cagrad_vectors(gradients, c)
    np.testing.assert_allclose(cagrad_coefficients(G @ G.T, c) @ G, expected, atol=2e-4 * np.linalg.norm(expected))


@pytest.mark.parametrize("scale", [1e-9, 1.0, 65536.0**2])
def test_cagrad_finds_the_minimum_at_any_scale(scale: float):
    G = np.array(random_gradients(3, 5, size=8))
    gram, c = G @ G.T, 0.5
    factors = cagrad_coefficients(gram * scale, c, rescale=False) / 3
    mean = np.full(3, 1 / 3)
    weights = (factors - mean) / (factors - mean).sum()
    radius = c * np.sqrt(mean @ gram @ mean)

    def dual(point: np.ndarray) -> float:
        return point @ gram @ mean + radius * np.sqrt(point @ gram @ point)

    steps = np.linspace(0, 1, 101)
    grid = min(dual(np.array([x, y, 1 - x - y])) for x, y in itertools.product(steps, steps) if x + y <= 1)
    assert (weights >= -1e-9).all()
    assert dual(weights) <= grid + 1e-6 * abs(grid)
    # The direction lies on the sphere of the radius around the mean gradient.
    np.testing.assert_allclose((factors - mean) @ gram @ (factors - mean), radius**2, rtol=1e-6)


def test_cagrad_with_radius_zero_is_the_sum():
    G = np.array(random_gradients(4, 1))
    np.testing.assert_allclose(cagrad_coefficients(G @ G.T, 0.0), np.ones(4))


def wrapper_for(model: torch.nn.Module, method: str = "pcgrad", **kwargs: object) -> GradientSurgeryOptimWrapper:
    return GradientSurgeryOptimWrapper(SGD(model.parameters(), lr=0.1, momentum=0.9), method=method, **kwargs)


def gradients_at_step(wrapper: OptimWrapper) -> list[list[Tensor]]:
    """Collect the gradients that the optimizer is given at every step."""
    seen: list[list[Tensor]] = []

    def record(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        seen.append([parameter.grad.clone() for parameter in optimizer.param_groups[0]["params"]])

    wrapper.optimizer.register_step_pre_hook(record)
    return seen


def reference(model: Tiny, batch: dict, method: str, step: int = 1) -> dict[str, Tensor]:
    """The combined gradients of one batch: vectors of the shared parameters, zero where a task does not reach."""
    model = copy.deepcopy(model)
    tasks = task_gradients(model, batch)
    names = [name for name, _ in model.named_parameters()]
    shared = [name for name in names if sum(name in gradients for gradients in tasks.values()) > 1]
    assert [name for name in names if name not in shared] == [name for name in names if name.startswith("heads")]
    sizes = dict(model.named_parameters())
    vectors = [
        np.concatenate(
            [gradients.get(name, torch.zeros_like(sizes[name])).flatten().double().numpy() for name in shared]
        )
        for gradients in tasks.values()
    ]
    if method == "pcgrad":
        combined = pcgrad_loops(vectors, np.random.default_rng([0, step]))
    else:
        combined = cagrad_vectors(vectors, 0.4)
    result, start = {}, 0
    for name in shared:
        size = sizes[name].numel()
        result[name] = torch.from_numpy(combined[start : start + size]).float().reshape(sizes[name].shape)
        start += size
    for gradients in tasks.values():
        result.update({name: gradient for name, gradient in gradients.items() if name not in shared})
    return {name: result[name] for name in names}


def tolerance(method: str) -> dict:
    return dict(rtol=1e-4, atol=1e-6) if method == "pcgrad" else dict(rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("method", METHODS)
def test_gradients_of_one_step(method: str):
    model, (batch,) = Tiny(), batches(1)
    expected = reference(model, batch, method)
    plain = copy.deepcopy(model)
    sum(plain(**batch).values()).backward()
    wrapper = wrapper_for(model, method)
    seen = gradients_at_step(wrapper)
    model.train_step(batch, wrapper)
    for name, found in zip(expected, seen[0], strict=True):
        torch.testing.assert_close(found, expected[name], **tolerance(method))
    # The tasks do conflict: the trunk's gradient is another one than without surgery.
    assert (seen[0][0] - plain.trunk[0].weight.grad).norm() > 0.05 * plain.trunk[0].weight.grad.norm()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("windows", [False, True])
def test_a_window_is_one_large_batch(method: str, windows: bool):
    parts = batches(6)
    model = Tiny()
    wrapper = wrapper_for(model, method, accumulative_counts=1 if windows else 3)
    wrapper.initialize_count_status(model, 0, 6)
    seen = gradients_at_step(wrapper)
    for number, part in enumerate(parts[:3]):
        expected = reference(model, joined(parts[:3]), method, step=3)
        if windows:
            wrapper.set_window(number, 3)
        model.train_step(part, wrapper)
        assert wrapper.should_update() == (number == 2)
    for name, found in zip(expected, seen[0], strict=True):
        torch.testing.assert_close(found, expected[name], **tolerance(method))
    assert len(seen) == 1


def train(model: torch.nn.Module, wrapper: OptimWrapper, parts: list[dict]) -> None:
    for part in parts:
        model.train_step(part, wrapper)


def assert_equal_weights(first: torch.nn.Module, second: torch.nn.Module) -> None:
    for (name, one), other in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("method", METHODS)
def test_one_task_a_step_is_the_plain_wrapper(method: str):
    """To the bit, momentum and weight decay of the heads without labels included."""
    parts = [dict(**part, present=(TASKS[number % 3],)) for number, part in enumerate(batches(6))]
    models = Tiny(), Tiny()
    optimizers = [AdamW(model.parameters(), lr=0.01, weight_decay=0.1) for model in models]
    train(models[0], GradientSurgeryOptimWrapper(optimizers[0], method=method), parts)
    train(models[1], OptimWrapper(optimizers[1]), parts)
    assert_equal_weights(*models)


def test_absent_tasks_have_no_part():
    """CAGrad of two tasks and an absent one is CAGrad of the two."""
    model, (batch,) = Tiny(), batches(1)
    tasks = task_gradients(copy.deepcopy(model), batch)
    # The twig is reached by task a alone, so that only the trunk is shared.
    vectors = [
        torch.cat([tasks[task][f"trunk.0.{part}"].flatten() for part in ("weight", "bias")]).double().numpy()
        for task in ("a", "c")
    ]
    expected = cagrad_vectors(vectors, 0.4)[:24].reshape(6, 4)
    wrapper = wrapper_for(model, "cagrad")
    seen = gradients_at_step(wrapper)
    model.train_step(dict(**batch, present=("a", "c")), wrapper)
    np.testing.assert_allclose(seen[0][0].numpy(), expected, rtol=2e-3, atol=2e-4)
    twig = [name for name, _ in model.named_parameters()].index("twig.weight")
    torch.testing.assert_close(seen[0][twig], tasks["a"]["twig.weight"])


def test_clipping_and_dropped_steps():
    model, parts = Tiny(), batches(2)
    wrapper = wrapper_for(model, clip_grad=dict(max_norm=0.01))
    seen = gradients_at_step(wrapper)
    model.train_step(parts[0], wrapper)
    norm = torch.cat([gradient.flatten() for gradient in seen[0]]).norm()
    torch.testing.assert_close(norm, torch.tensor(0.01), rtol=1e-3, atol=0)
    before = copy.deepcopy(model)

    def drop(optimizer: torch.optim.Optimizer, args: tuple, kwargs: dict) -> None:
        for parameter in optimizer.param_groups[0]["params"]:
            parameter.grad = None

    wrapper.optimizer.register_step_pre_hook(drop)
    model.train_step(parts[1], wrapper)
    assert_equal_weights(model, before)


@pytest.mark.parametrize("method", METHODS)
def test_a_gradient_that_is_not_finite_is_passed_on(method: str):
    model, (batch,) = Tiny(), batches(1)
    batch["targets"][0, 1, 0] = float("nan")
    wrapper = wrapper_for(model, method)
    seen = gradients_at_step(wrapper)
    model.train_step(batch, wrapper)
    assert seen[0][0].isnan().any()
    assert seen[0][[name for name, _ in model.named_parameters()].index("heads.a.weight")].isfinite().all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("counted", [True, False], ids=["runner", "state"])
def test_resume_repeats_the_run_to_the_bit(method: str, counted: bool):
    """MMEngine's runner says the number of the iteration after it has loaded the state, its strategies do not."""
    parts = batches(8)
    whole, first, second = Tiny(), Tiny(), Tiny()
    train(whole, wrapper_for(whole, method, accumulative_counts=2), parts)
    wrapper = wrapper_for(first, method, accumulative_counts=2)
    train(first, wrapper, parts[:4])
    second.load_state_dict(first.state_dict())
    resumed = wrapper_for(second, method, accumulative_counts=2)
    resumed.load_state_dict(copy.deepcopy(wrapper.state_dict()))
    if counted:
        resumed.initialize_count_status(second, 4, 8)
    train(second, resumed, parts[4:])
    assert_equal_weights(whole, second)


def worker(rank: int, method: str, settings: dict, folder: str) -> None:
    """Each process has one half of every batch; in the second step the second one has no labels of task b."""
    model = Tiny()
    parallel = MMDistributedDataParallel(model, **settings)
    wrapper = wrapper_for(model, method, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    for number, batch in enumerate(batches(4)):
        half = {key: value[4 * rank : 4 * rank + 4] for key, value in batch.items()}
        present = ("a", "c") if number == 1 and rank == 1 else ("b",) if number == 2 else TASKS
        parallel.train_step(dict(**half, present=present), wrapper)
    torch.save(model.state_dict(), f"{folder}/{rank}.pth")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("settings", [{}, dict(find_unused_parameters=True)], ids=["plain", "unused"])
def test_two_processes_equal_one_with_both_halves(tmp_path: Path, method: str, settings: dict):
    two_processes(worker, tmp_path, method, settings, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    model = Tiny()
    wrapper = wrapper_for(model, method, accumulative_counts=2)
    wrapper.initialize_count_status(model, 0, 4)
    for number, batch in enumerate(batches(4)):
        halves = [{key: value[4 * rank : 4 * rank + 4] for key, value in batch.items()} for rank in range(2)]
        total, _ = model.parse_losses(model(**batch))
        if number == 1:
            # The mean over the processes of a task's loss, where one of them has none.
            total.task_losses["b"] = model(**halves[0])["b.loss"] / 2
        if number == 2:
            total.absent_tasks = {"a", "c"}
        wrapper.update_params(total)
    for name, value in model.state_dict().items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-4, atol=1e-6)


def amp_wrapper(model: Tiny, monkeypatch: pytest.MonkeyPatch, init_scale: float, **kwargs: object) -> AmpOptimWrapper:
    """MMEngine refuses to build it without a GPU, and its scaler is CUDA's; a scaler for the CPU does the same."""
    monkeypatch.setattr("mmengine.optim.optimizer.amp_optimizer_wrapper.is_cuda_available", lambda: True)
    wrapper = AmpGradientSurgeryOptimWrapper(
        optimizer=SGD(model.parameters(), lr=0.1, momentum=0.9), dtype="bfloat16", **kwargs
    )
    wrapper.loss_scaler = torch.amp.GradScaler("cpu", init_scale=init_scale)
    return wrapper


@pytest.mark.parametrize("method", METHODS)
def test_scaled_gradients_give_the_same_update(method: str, monkeypatch: pytest.MonkeyPatch):
    """bfloat16 in the forward pass of both; the scaler multiplies and divides by a power of two."""
    parts, models = batches(4), (Tiny(), Tiny())
    wrappers = [
        amp_wrapper(model, monkeypatch, scale, method=method, accumulative_counts=2, clip_grad=dict(max_norm=1.0))
        for model, scale in zip(models, (1.0, 1024.0), strict=True)
    ]
    for model, wrapper in zip(models, wrappers, strict=True):
        with wrapper.optim_context(model):
            assert model(**parts[0])["a.loss"].dtype == torch.float32
            assert model.trunk(parts[0]["inputs"]).dtype == torch.bfloat16
        train(model, wrapper, parts)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert not torch.equal(models[0].trunk[0].weight, Tiny().trunk[0].weight)


def test_an_overflow_skips_the_step(monkeypatch: pytest.MonkeyPatch):
    model, parts = Tiny(), batches(2)
    wrapper = amp_wrapper(model, monkeypatch, 2.0**120)
    parts[0]["targets"] *= 1e4
    train(model, wrapper, parts[:1])
    assert_equal_weights(model, Tiny())
    assert wrapper.loss_scaler.get_scale() == 2.0**119
    assert wrapper.state_dict()["loss_scaler"]["scale"] == 2.0**119


def sharded_worker(rank: int, folder: str) -> None:
    model = FullyShardedDataParallel(Tiny(), device_id=torch.device("cpu"))
    try:
        with wrapper_for(model).optim_context(model):
            pass
    except MTAdaptError as error:
        Path(folder, f"{rank}.txt").write_text(str(error))


def test_sharded_models_are_refused(tmp_path: Path):
    two_processes(sharded_worker, tmp_path, str(tmp_path))
    for rank in range(2):
        assert "does not work with FSDP; use DDP or OptimWrapper" in (tmp_path / f"{rank}.txt").read_text()


def test_built_from_a_config():
    model = Tiny()
    built = ROOT.build(
        dict(type="GradientSurgeryOptimWrapper", method="cagrad", c=0.2, optimizer=SGD(model.parameters(), lr=1.0))
    )
    assert isinstance(built, GradientSurgeryOptimWrapper)
    assert amp_variant("GradientSurgeryOptimWrapper") == "AmpGradientSurgeryOptimWrapper"
    assert amp_variant("mtadapt.SourceAccumulationOptimWrapper") == "mtadapt.AmpSourceAccumulationOptimWrapper"
    assert amp_variant(OptimWrapper) == amp_variant("AmpOptimWrapper") == "AmpOptimWrapper"
    with pytest.raises(MTAdaptError, match=r"ApexOptimWrapper.*no mixed-precision variant"):
        amp_variant("ApexOptimWrapper")


def test_mistakes_are_named():
    model = Tiny()
    with pytest.raises(MTAdaptError, match="method='pcgrab' is unknown; known: pcgrad, cagrad"):
        wrapper_for(model, "pcgrab")
    with pytest.raises(MTAdaptError, match=r"c=1\.5"):
        wrapper_for(model, "cagrad", c=1.5)
    with pytest.raises(MTAdaptError, match="needs the loss of every task"):
        wrapper_for(model).update_params(model.trunk[0].weight.sum())
