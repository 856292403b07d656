"""The flexible runner's strategies, from the commands that users type: against DDP, and across an interruption."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn

from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.engine import DeepSpeedStrategy, FSDPStrategy, StageRunner, StrategyRunner, runner_class
from mtadapt.engine.strategies import plain_model, shared_parts_policy
from mtadapt.engine.strategies.elementwise import check_elementwise
from mtadapt.engine.strategies.outline import outline
from mtadapt.errors import MTAdaptError
from mtadapt.models.moe import LayerExperts, MoEMLP
from mtadapt.registry import MODELS
from tests.command_line import ROOT, last_line, run

# SGD, because Adam's first steps turn the rounding of gradients near zero into whole steps; no flips, because the
# transforms of stock loaders draw anew after an interruption.
CONFIG = """
_base_ = ["{root}/configs/mt_synthetic_baseline.py"{strategy}]
pipeline = [dict(type="LoadImage"), dict(type="LoadMultiTaskAnnotations"), dict(type="PackMultiTaskInputs")]
train_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(data_root="{data}", pipeline=pipeline))
val_dataloader = dict(batch_size=1, num_workers=1, dataset=dict(data_root="{data}"))
test_dataloader = val_dataloader
model = dict(backbone=dict(pretrained=None))
optim_wrapper = dict(
    _delete_=True,
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.002, momentum=0.9, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.0),
    paramwise_cfg=dict(flat_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.5))),
)
train_cfg = dict(max_epochs=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), visualization=dict(num_images=0))
log_processor = dict(window_size=1)
custom_hooks = [dict(type="CheckpointMatchHook"), dict(type="ParameterTableHook")]
"""
SHARDED = "strategy = dict(model_wrapper=dict(auto_wrap_policy=dict(min_num_params=100_000)))\n"
STRATEGIES = {"fsdp": ("fsdp", SHARDED), "deepspeed": ("deepspeed_zero2", "")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, and configs that differ in the strategy alone."""
    folder = tmp_path_factory.mktemp("strategies")
    write_bdd100k(folder / "data", train=6, val=2, size=(160, 96), seed=1, workers=1)
    (folder / "ddp.py").write_text(CONFIG.format(root=ROOT, data=folder / "data", strategy=""))
    for name, (base, more) in STRATEGIES.items():
        strategy = f', "{ROOT}/configs/_base_/strategies/{base}.py"'
        (folder / f"{name}.py").write_text(CONFIG.format(root=ROOT, data=folder / "data", strategy=strategy) + more)
    return folder


def train(folder: Path, config: str, *flags: str, code: int = 0) -> str:
    """Train with two processes."""
    settings = [f"PORT={21000 + os.getpid() % 8000}", "DS_ACCELERATOR=cpu"]
    return run(
        "env", *settings, "bash", ROOT / "tools/dist_train.sh", f"{config}.py", "2", *flags, cwd=folder, code=code
    )


def losses(printed: str) -> list[float]:
    return [float(loss) for loss in re.findall(r"Epoch\(train\).* loss: (\S+)", printed)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)["state_dict"]


@pytest.fixture(scope="module")
def ddp(folder: Path) -> str:
    """What two processes of DDP print."""
    return train(folder, "ddp")


@pytest.fixture(scope="module")
def fsdp(folder: Path) -> str:
    """What two processes of FSDP print."""
    return train(folder, "fsdp")


def test_fsdp_trains_as_ddp(folder: Path, ddp: str, fsdp: str):
    assert len(losses(fsdp)) == 6
    # From the fourth step on, rounding can change which proposals are sampled.
    assert losses(fsdp)[:3] == pytest.approx(losses(ddp)[:3], abs=2e-4)
    norms = [re.findall(r"grad_norm: (\S+)", printed) for printed in (fsdp, ddp)]
    assert [float(norm) for norm in norms[0][:3]] == pytest.approx([float(norm) for norm in norms[1][:3]], rel=1e-4)
    assert float(norms[0][0]) > 10, "the gradients are clipped"
    one, other = (weights(folder / "work_dirs" / name / "epoch_1.pth") for name in ("fsdp", "ddp"))
    assert list(one) == list(other)
    for name, value in other.items():
        torch.testing.assert_close(one[name], value, rtol=1e-4, atol=1e-5, msg=name)
    assert re.search(r"\| total +\| +5,373,656 \| +5,373,656 \|", fsdp), "the table counts whole parameters"


def test_fsdp_resumes_to_the_bit(folder: Path, fsdp: str):
    printed = train(folder, "fsdp", "--resume", "work_dirs/fsdp/epoch_1.pth", "--work-dir", "resumed")
    assert losses(printed) == losses(fsdp)[3:]
    whole, resumed = (folder / part / "epoch_2.pth" for part in ("work_dirs/fsdp", "resumed"))
    one, other = (torch.load(path, weights_only=False) for path in (whole, resumed))
    assert all(torch.equal(one["state_dict"][name], value) for name, value in other["state_dict"].items())
    for number, state in one["optimizer"]["state"].items():
        assert torch.equal(state["momentum_buffer"], other["optimizer"]["state"][number]["momentum_buffer"])
    assert not list(folder.glob("*/*.tmp")), "checkpoints are moved into their place"


def test_checkpoints_of_fsdp_and_ddp_are_interchangeable(folder: Path, ddp: str, fsdp: str):
    one, other = (
        torch.load(folder / "work_dirs" / name / "epoch_1.pth", weights_only=False)["optimizer"]
        for name in ("fsdp", "ddp")
    )
    assert [group["params"] for group in one["param_groups"]] == [group["params"] for group in other["param_groups"]]
    for number, state in other["state"].items():
        found = one["state"][number]["momentum_buffer"]
        torch.testing.assert_close(found, state["momentum_buffer"], rtol=1e-3, atol=1e-3)
    printed = train(folder, "fsdp", "--resume", "work_dirs/ddp/epoch_1.pth", "--work-dir", "crossed")
    assert losses(printed)[0] == pytest.approx(losses(ddp)[3], abs=2e-3)
    # The ordinary runner tests it, on one process.
    printed = run(ROOT / "tools/test.py", "fsdp.py", "crossed/epoch_2.pth", cwd=folder)
    assert "det/bbox_mAP" in printed


@pytest.mark.skipif(find_spec("deepspeed") is None, reason="needs deepspeed")
def test_deepspeed_trains_as_ddp_and_resumes_to_the_bit(folder: Path, ddp: str):
    printed = train(folder, "deepspeed")
    assert losses(printed)[:3] == pytest.approx(losses(ddp)[:3], abs=2e-4)
    again = train(folder, "deepspeed", "--resume", "work_dirs/deepspeed/epoch_1.pth", "--work-dir", "again")
    assert losses(again) == losses(printed)[3:]
    one, other = (weights(folder / part / "epoch_2.pth/weights.pth") for part in ("work_dirs/deepspeed", "again"))
    assert all(torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.skipif(find_spec("deepspeed") is not None, reason="deepspeed is installed")
def test_deepspeed_is_missing(folder: Path):
    printed = run(ROOT / "tools/train.py", "deepspeed.py", cwd=folder, code=2)
    assert last_line(printed).startswith(
        "error: strategy.type='DeepSpeedStrategy': deepspeed is not installed; pip inst"
    )


def test_a_process_alone_cannot_shard(folder: Path):
    printed = run(ROOT / "tools/train.py", "fsdp.py", cwd=folder, code=2)
    assert last_line(printed) == "error: strategy.type='FSDPStrategy' needs processes: tools/dist_train.sh CONFIG GPUS"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(runner_type="Fast"), r"runner_type='Fast'; known: 'Runner', and 'FlexibleRunner' for a strategy"),
        (dict(strategy=dict(type="FSDPStrategy")), r"strategy is read by runner_type='FlexibleRunner' alone"),
        (dict(runner_type="FlexibleRunner", stages=[]), r"runner_type='FlexibleRunner' trains no stages"),
        (dict(runner_type="FlexibleRunner", stage=dict(name="a")), r"runner_type='FlexibleRunner' trains no stages"),
    ],
)
def test_runner_type_is_checked(settings: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        runner_class(Config(settings))


def test_runner_class():
    assert runner_class(Config(dict(stage=dict(name="a")))) is StageRunner
    assert runner_class(Config(dict(runner_type="FlexibleRunner"))) is StrategyRunner


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(model_wrapper=dict(use_orig_params=False)), r"use_orig_params=False merges parameters"),
        (dict(state_dict_cfg="local"), r"strategy.state_dict_cfg='local'; known: 'full'"),
    ],
)
def test_fsdp_refuses_what_cannot_be_resumed(settings: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        FSDPStrategy(**settings)


def test_deepspeed_refuses_what_it_cannot_replace():
    strategy = DeepSpeedStrategy.__new__(DeepSpeedStrategy)
    strategy.config = {}
    for settings, message in (
        (dict(type="GradientSurgeryOptimWrapper"), r"'GradientSurgeryOptimWrapper' does not work with DeepSpeed"),
        (dict(type="AmpOptimWrapper"), r"use strategy.bf16=dict\(enabled=True\)"),
        (dict(clip_grad=dict(type="value", clip_value=1)), r"DeepSpeed clips by the 2-norm; set max_norm"),
    ):
        with pytest.raises(MTAdaptError, match=message):
            strategy.build_optim_wrapper(dict(optimizer=dict(type="SGD", lr=0.1), **settings), nn.Linear(2, 2))
    model = nn.Linear(2, 2)
    wrapper = strategy.build_optim_wrapper(
        dict(optimizer=dict(type="SGD", lr=0.1), clip_grad=dict(max_norm=3), accumulative_counts=4), model
    )
    assert strategy.config == dict(gradient_clipping=3, gradient_accumulation_steps=4)
    assert wrapper.optimizer.param_groups[0]["params"] == list(model.parameters())


@pytest.mark.parametrize("kind", ["Lamb", "mmpretrain.Lamb", "LARS"])
def test_optimizers_with_norms_of_whole_parameters_are_refused(kind: str):
    check_elementwise(dict(optimizer=dict(type="AdamW")), "FSDP")
    with pytest.raises(MTAdaptError, match=rf"optimizer.type='{kind}' takes norms of whole parameters, of which FSDP"):
        check_elementwise(dict(optimizer=dict(type=kind)), "FSDP")


def test_policy_wraps_what_is_called_by_forward():
    config = Config.fromfile(ROOT / "configs/mt_synthetic_lv.py")
    config.model.backbone.pretrained = None
    model = MODELS.build(config.model)
    big = dict(nonwrapped_numel=10**6, min_num_params=10**5)
    assert shared_parts_policy(model, recurse=True, **big)
    assert shared_parts_policy(model.backbone, recurse=False, **big)
    for module in (*model.tasks.values(), model.adapter, model.data_preprocessor):
        assert not shared_parts_policy(module, recurse=True, **big)
        assert not shared_parts_policy(module, recurse=False, **big)
    assert not shared_parts_policy(model.backbone, recurse=False, nonwrapped_numel=10**4, min_num_params=10**5)
    layer = MoEMLP(8, 4, LayerExperts((4,), 2), ["a", "b"])
    assert not shared_parts_policy(layer, recurse=True, **big)
    assert not shared_parts_policy(layer, recurse=False, **big)


def test_outline_has_the_names_and_shapes_without_values():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    model[0].weight.requires_grad = False
    empty = outline(model)
    shapes = {name: value.shape for name, value in empty.state_dict().items()}
    assert shapes == {name: value.shape for name, value in model.state_dict().items()}
    assert all(value.is_meta for value in empty.parameters()) and not model[0].weight.is_meta
    assert [p.requires_grad for p in empty.parameters()] == [p.requires_grad for p in model.parameters()]

    class Runner:
        strategy = None

    runner = Runner()
    runner.model = model
    assert plain_model(runner) is model
    runner.strategy = Runner()
    runner.strategy.outline = empty
    assert plain_model(runner) is empty
