"""Steps that are not finite: left out on every process, to the bit, reported, and not without end."""

from __future__ import annotations

import json
import math
import os
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.optim.optimizer import amp_optimizer_wrapper
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import Tensor, nn
from torch.utils.data import Dataset

from mtadapt.engine.hooks.non_finite_hook import NonFiniteHook
from mtadapt.errors import MTAdaptError

ADAM = dict(type="Adam", lr=0.01)
ITERATIONS, BATCH = 9, 2
#: (iteration from 0, rank) to what is wrong with that batch.
Faults = dict[tuple[int, int], str]


class Images(Dataset):
    """Images whose batches have the given faults, in the order in which ranks draw them."""

    def __init__(self, faults: Faults, world: int = 1) -> None:
        self.faults, self.world = faults, world

    def __len__(self) -> int:
        return ITERATIONS * BATCH * self.world

    def __getitem__(self, index: int) -> dict:
        rank, position = index % self.world, index // self.world
        fault = self.faults.get((position // BATCH, rank), "")
        inputs = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(index))
        if fault in ("nan", "inf"):
            inputs[0, 2, 3] = float(fault)
        return dict(inputs=inputs, data_samples=BaseDataElement(metainfo=dict(img_path=f"{index}.jpg", fault=fault)))


class Small(BaseModel):
    """A convolution with batch norm, whose samples can say what goes wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 1)
        self.register_buffer("table", torch.arange(3))

    def forward(self, inputs: Tensor, data_samples: list, mode: str = "loss") -> dict[str, Tensor]:
        fault = data_samples[0].get("fault")
        features = self.norm(self.conv(torch.stack([*inputs]) if isinstance(inputs, list) else inputs))
        score = self.head(features.relu().mean((2, 3)).float()).float()
        losses = dict(loss_square=(score - 1).square().mean(), loss_size=score.abs().mean(), seen=torch.tensor(2.0))
        if fault == "label":
            losses["loss_size"] = losses["loss_size"] * math.nan
        elif fault == "constant":  # without a trace in the gradient
            losses["loss_size"] = losses["loss_size"] + math.nan
        elif fault == "gradient":  # of the root at 0, which is itself finite
            losses["loss_size"] = losses["loss_size"] + (score * 0).sum().sqrt()
        elif fault == "large":  # the square of the gradient overflows, the gradient does not
            losses["loss_size"] = losses["loss_size"] * 1e25
        return losses

    def parse_losses(self, losses: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """As the multi-task model, for gradient surgery."""
        total, named = super().parse_losses(losses)
        total.task_losses = {name: value for name, value in losses.items() if "loss" in name}
        return total, named


def leave_out(runner: Runner, iterations: tuple[int, ...]) -> None:
    """Do nothing at these iterations, from 0: neither forward nor backward pass nor step."""
    train_step = runner.model.train_step

    def step(data: dict, optim_wrapper: OptimWrapper) -> dict[str, Tensor]:
        if runner.iter in iterations:
            optim_wrapper._inner_count += 1
            return dict(loss=torch.tensor(0.0))
        return train_step(data, optim_wrapper)

    runner.model.train_step = step


class Record(Hook):
    """The learning rate of each iteration, and whether the weights are finite behind it."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.rates: list[float] = []

    def after_train_iter(self, runner: Runner, *args: object, **kwargs: object) -> None:
        self.rates.append(runner.optim_wrapper.get_lr()["lr"][0])
        assert all(torch.isfinite(value).all() for value in runner.model.state_dict().values())


def run(
    folder: Path,
    faults: Faults,
    hooks: list,
    *,
    left_out: tuple[int, ...] = (),
    optimizer: dict = ADAM,
    world: int = 1,
    model: type[Small] = Small,
    **wrapper: object,
) -> Runner:
    """Train nine iterations through MMEngine's runner."""
    torch.manual_seed(0)
    runner = Runner(
        model=model(),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=Images(faults, world),
            batch_size=BATCH,
            sampler=dict(type="DefaultSampler", shuffle=False),
            collate_fn=dict(type="pseudo_collate"),
        ),
        train_cfg=dict(by_epoch=True, max_epochs=1),
        param_scheduler=[dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=6)],
        optim_wrapper=dict(optimizer=dict(optimizer), **wrapper),
        default_hooks=dict(checkpoint=None, logger=dict(type="LoggerHook", interval=1)),
        custom_hooks=hooks,
        randomness=dict(seed=0),
        default_scope="mtadapt",
        experiment_name=str(folder).replace("/", "_"),
        launcher="none" if world == 1 else "pytorch",
        cfg=dict(model_wrapper_cfg=dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)),
    )
    leave_out(runner, left_out)
    runner.train()
    return runner


def assert_same(runner: Runner, expected: Runner) -> None:
    """Weights, buffers and the optimizer's state are equal to the bit."""
    for name, value in expected.model.state_dict().items():
        assert torch.equal(runner.model.state_dict()[name], value), name
    states, others = runner.optim_wrapper.optimizer.state_dict(), expected.optim_wrapper.optimizer.state_dict()
    assert states["param_groups"] == others["param_groups"]
    assert states["state"].keys() == others["state"].keys() and others["state"]
    for number, state in others["state"].items():
        for name, value in state.items():
            assert torch.equal(torch.as_tensor(states["state"][number][name]), torch.as_tensor(value)), (number, name)


def log_of(folder: Path) -> str:
    return next(folder.glob("*/*.log")).read_text()


@pytest.mark.parametrize("optimizer", [ADAM, dict(type="SGD", lr=0.1, momentum=0.9, weight_decay=0.1)])
@pytest.mark.parametrize("fault", ["nan", "inf", "label", "gradient"])
def test_step_is_left_out(tmp_path: Path, fault: str, optimizer: dict):
    hook, record = NonFiniteHook(), Record()
    clip = dict(max_norm=0.5)
    runner = run(tmp_path / "guarded", {(3, 0): fault}, [hook, record], optimizer=optimizer, clip_grad=clip)
    plain = Record()
    expected = run(tmp_path / "without", {}, [plain], left_out=(3,), optimizer=optimizer, clip_grad=dict(clip))
    assert_same(runner, expected)
    assert record.rates == plain.rates and len(record.rates) == ITERATIONS
    assert (hook.skips, hook.skips_in_a_row) == (1, 0)

    content = json.loads((tmp_path / "guarded/non_finite.json").read_text())
    (step,) = content["steps"]
    (batch,) = step["batches"]
    assert (content["skips"], step["iteration"], batch["iteration"], batch["rank"]) == (1, 4, 4, 0)
    assert step["reason"] == ("gradient" if fault == "gradient" else "loss")
    assert batch["samples"] == [dict(img_path="6.jpg"), dict(img_path="7.jpg")]
    assert batch["losses"].keys() == {"loss", "loss_square", "loss_size", "seen"} and batch["losses"]["seen"] == 2
    assert (batch["losses"]["loss_size"] == "nan") == (fault != "gradient")
    assert isinstance(batch["losses"]["loss_square"], float) == (fault in ("label", "gradient"))
    log = log_of(tmp_path / "guarded")
    assert "Step of iteration 4 skipped (1 in a row, at most 10; 1 in all): the " in log
    assert "rank 0, files: 6.jpg, 7.jpg; see " in log
    assert "non_finite_skips: 1" in log and "overridden after" not in log


def test_finite_run_is_that_without_the_hook(tmp_path: Path):
    """Also with a gradient whose square overflows."""
    faults = {(4, 0): "large"}
    runner = run(tmp_path / "guarded", faults, [NonFiniteHook(max_skips=0)])
    assert_same(runner, run(tmp_path / "plain", faults, []))
    assert not (tmp_path / "guarded/non_finite.json").exists()
    assert vars(runner.optim_wrapper)["step"].__qualname__.startswith("OptimWrapper.step")
    assert "update_params" not in vars(runner.optim_wrapper)


@pytest.mark.parametrize("fault", ["nan", "label", "gradient"])
def test_whole_window_of_accumulation_is_left_out(tmp_path: Path, fault: str):
    hook = NonFiniteHook(max_skips=1)
    runner = run(tmp_path / "guarded", {(4, 0): fault}, [hook], accumulative_counts=3)
    assert_same(runner, run(tmp_path / "without", {}, [], left_out=(3, 4, 5), accumulative_counts=3))
    (step,) = json.loads((tmp_path / "guarded/non_finite.json").read_text())["steps"]
    assert step["iteration"] == 6
    named = [batch["iteration"] for batch in step["batches"]]
    assert named == ([4, 5, 6] if fault == "gradient" else [5])
    assert step["batches"][-1]["samples"][0]["img_path"] == ("10.jpg" if fault == "gradient" else "8.jpg")


def test_stops_after_too_many_in_a_row(tmp_path: Path):
    hook = NonFiniteHook(max_skips=2)
    faults = {(at, 0): "label" for at in (0, 1, 3, 4, 6, 7, 8)}
    with pytest.raises(MTAdaptError) as error:
        run(tmp_path, faults, [hook])
    path = tmp_path / "non_finite.json"
    assert str(error.value) == (
        "NonFiniteHook: 3 steps in a row were not finite (max_skips=2); last, at iteration 9, the loss was not finite, "
        f"rank 0, files: 16.jpg, 17.jpg; look at the files named in {path}, or lower the learning rate"
    )
    content = json.loads(path.read_text())
    assert [step["iteration"] for step in content["steps"]] == [1, 2, 4, 5, 7, 8, 9]
    assert (content["skips"], content["max_skips"]) == (7, 2)
    assert [file.name for file in tmp_path.glob("non_finite*")] == ["non_finite.json"]


def test_weights_that_are_not_finite_are_named(tmp_path: Path):
    class Broken(Small):
        def __init__(self) -> None:
            super().__init__()
            nn.init.constant_(self.head.bias, math.inf)

    with pytest.raises(
        MTAdaptError, match=r"3 steps in a row .* the weights themselves are not finite, e.g. head.bias;"
    ):
        run(tmp_path, {}, [NonFiniteHook(max_skips=2)], model=Broken)


def test_a_folder_that_cannot_be_written_does_not_stop(tmp_path: Path):
    (tmp_path / "non_finite.json").mkdir()
    hook = NonFiniteHook()
    run(tmp_path, {(2, 0): "nan"}, [hook])
    assert hook.skips == 1
    assert "the batches are in the log alone" in log_of(tmp_path)


def process(rank: int, folder: str, faults: Faults, left_out: tuple[int, ...], max_skips: int | None, wrapper: dict):
    torch.set_num_threads(1)
    os.environ["LOCAL_RANK"] = str(rank)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    hooks = [] if max_skips is None else [NonFiniteHook(max_skips)]
    result: dict = {}
    try:
        runner = run(Path(folder), faults, hooks, left_out=left_out, world=2, **wrapper)
        result.update(model=runner.model.module.state_dict(), optimizer=runner.optim_wrapper.optimizer.state_dict())
    except MTAdaptError as error:
        result.update(error=str(error))
    result.update(skips=[hook.skips for hook in hooks])
    torch.save(result, f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def two_processes(folder: Path, faults: Faults, left_out: tuple[int, ...], max_skips: int | None, **wrapper) -> list:
    folder.mkdir()
    arguments = (str(folder), faults, left_out, max_skips, wrapper)
    processes = mp.start_processes(process, arguments, nprocs=2, join=False, start_method="fork")
    assert processes is not None
    for _ in range(120):
        if processes.join(timeout=1):
            return [torch.load(folder / f"{rank}.pth") for rank in range(2)]
    for each in processes.processes:
        each.kill()
    pytest.fail("the processes wait for each other")


@pytest.mark.parametrize(
    ("fault", "counts", "left_out"),
    [("nan", 1, (4,)), ("gradient", 1, (4,)), ("constant", 1, (4,)), ("label", 3, (3, 4, 5))],
)
def test_one_bad_rank_leaves_out_the_step_on_both(tmp_path: Path, fault: str, counts: int, left_out: tuple[int, ...]):
    guarded = two_processes(tmp_path / "guarded", {(4, 1): fault}, (), 10, accumulative_counts=counts)
    without = two_processes(tmp_path / "without", {}, left_out, None, accumulative_counts=counts)
    for rank, (one, other) in enumerate(zip(guarded, without, strict=True)):
        assert one["skips"] == [1]
        for name, value in other["model"].items():
            assert torch.isfinite(value).all() and torch.equal(one["model"][name], value), (rank, name)
        for number, state in other["optimizer"]["state"].items():
            for name, value in state.items():
                assert torch.equal(one["optimizer"]["state"][number][name], value), (rank, number, name)
    (step,) = json.loads((tmp_path / "guarded/non_finite.json").read_text())["steps"]
    named = [(batch["rank"], batch["samples"][0]["img_path"]) for batch in step["batches"]]
    assert named == ([(0, "16.jpg"), (1, "17.jpg")] if fault == "gradient" else [(1, "17.jpg")])


def test_both_ranks_stop(tmp_path: Path):
    faults = {(2, 0): "label", (3, 1): "nan", (4, 1): "nan"}
    first, second = two_processes(tmp_path / "run", faults, (), 2)
    assert first["error"] == second["error"]
    assert first["error"].startswith(
        "NonFiniteHook: 3 steps in a row were not finite (max_skips=2); last, at iteration 5"
    )
    assert "rank 1, files: 17.jpg, 19.jpg;" in first["error"]
    steps = json.loads((tmp_path / "run/non_finite.json").read_text())["steps"]
    assert [[batch["rank"] for batch in step["batches"]] for step in steps] == [[0], [1], [1]]


AMP = dict(type="AmpOptimWrapper", dtype="bfloat16")


@pytest.fixture
def amp_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wrapper asks for an accelerator; autocast and the scaler work without."""
    monkeypatch.setattr(amp_optimizer_wrapper, "is_cuda_available", lambda: True)
    monkeypatch.setattr(amp_optimizer_wrapper, "GradScaler", partial(torch.amp.GradScaler, device="cpu"))


def scaler(scale: float) -> dict:
    return dict(init_scale=scale, growth_interval=1000)


@pytest.mark.usefixtures("amp_on_cpu")
def test_amp_a_bad_loss_does_not_touch_the_scale(tmp_path: Path):
    hook = NonFiniteHook()
    runner = run(tmp_path / "guarded", {(3, 0): "nan", (5, 0): "label"}, [hook], loss_scale=scaler(1024.0), **AMP)
    expected = run(tmp_path / "without", {}, [], left_out=(3, 5), loss_scale=scaler(1024.0), **AMP)
    assert_same(runner, expected)
    assert runner.optim_wrapper.loss_scaler.state_dict() == expected.optim_wrapper.loss_scaler.state_dict()
    assert runner.optim_wrapper.loss_scaler.get_scale() == 1024 and hook.skips == 2


@pytest.mark.usefixtures("amp_on_cpu")
@pytest.mark.parametrize("clip", [None, dict(max_norm=0.5)])
def test_amp_overflow_by_the_scale_is_not_counted(tmp_path: Path, clip: dict | None):
    """The gradient of the loss that is 1e25 times larger overflows at this scale, and not without one."""
    faults = {(2, 0): "large", (3, 0): "large"}
    hook = NonFiniteHook(max_skips=0)
    runner = run(tmp_path / "guarded", faults, [hook], loss_scale=scaler(2.0**60), clip_grad=clip, **AMP)
    clip = dict(max_norm=0.5) if clip is not None else None
    assert_same(runner, run(tmp_path / "plain", faults, [], loss_scale=scaler(2.0**60), clip_grad=clip, **AMP))
    assert runner.optim_wrapper.loss_scaler.get_scale() == 2.0**58 and hook.skips == 0


@pytest.mark.usefixtures("amp_on_cpu")
@pytest.mark.parametrize(
    ("loss_scale", "skips", "left"), [(scaler(1.0), 3, 0.125), (scaler(4.0), 1, 0.5), (512.0, 3, 512)]
)
def test_amp_gradients_that_no_scale_helps_are_counted(
    tmp_path: Path, loss_scale: dict | float, skips: int, left: float
):
    """Those at a scale of 1 or less (the third at 4, 2, 1), and those at a scale that does not change."""
    faults = {(at, 0): "gradient" for at in (2, 3, 4)}
    hook = NonFiniteHook()
    runner = run(tmp_path / "guarded", faults, [hook], loss_scale=loss_scale, **AMP)
    assert (hook.skips, runner.optim_wrapper.loss_scaler.get_scale()) == (skips, left)
    if skips == 3:
        assert_same(runner, run(tmp_path / "without", {}, [], left_out=(2, 3, 4), loss_scale=1.0, **AMP))


@pytest.mark.parametrize("method", ["pcgrad", "cagrad"])
@pytest.mark.parametrize("fault", ["nan", "label", "gradient"])
def test_gradient_surgery_is_guarded(tmp_path: Path, fault: str, method: str):
    surgery = dict(type="GradientSurgeryOptimWrapper", method=method, accumulative_counts=3)
    runner = run(tmp_path / "guarded", {(4, 0): fault}, [NonFiniteHook(max_skips=1)], **surgery)
    assert_same(runner, run(tmp_path / "without", {}, [], left_out=(3, 4, 5), **surgery))


def test_sparse_gradients_are_looked_at(tmp_path: Path):
    class Table(Small):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Embedding(4, 1, sparse=True)

        def forward(self, *args: object, **kwargs: object) -> dict[str, Tensor]:
            losses = super().forward(*args, **kwargs)
            losses["loss_rows"] = self.rows(torch.tensor([1, 1, 2])).square().sum()
            return losses

    sgd = dict(type="SGD", lr=0.1)
    runner = run(tmp_path / "guarded", {(3, 0): "gradient"}, [NonFiniteHook()], optimizer=sgd, model=Table)
    expected = run(tmp_path / "without", {}, [], left_out=(3,), optimizer=sgd, model=Table)
    assert torch.equal(runner.model.rows.weight, expected.model.rows.weight)
    assert not torch.equal(runner.model.rows.weight[1], Table().rows.weight[1])


@pytest.mark.parametrize("max_skips", [-1, 1.5, True, "3"])
def test_a_limit_that_is_no_number_is_refused(max_skips: object):
    with pytest.raises(MTAdaptError, match=r"NonFiniteHook: max_skips is .*; give an integer of 0 or more"):
        NonFiniteHook(max_skips=max_skips)


def test_several_optimizers_are_refused(tmp_path: Path):
    class Several(Hook):
        priority = "VERY_HIGH"

        def before_train(self, runner: Runner) -> None:
            runner.optim_wrapper = OptimWrapperDict(all=runner.optim_wrapper)

    with pytest.raises(MTAdaptError, match="optim_wrapper is a OptimWrapperDict, whose steps cannot be left out; use"):
        run(tmp_path, {}, [Several(), NonFiniteHook()])
