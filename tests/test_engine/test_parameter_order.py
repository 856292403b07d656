"""The state of an optimizer finds its parameters, whatever their order in the model."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.optim import CosineAnnealingLR, OptimWrapper, OptimWrapperDict, build_optim_wrapper
from torch import nn

from mtadapt.engine.optim import parameter_groups, reorder_state
from mtadapt.errors import MTAdaptError
from tests.command_line import ROOT, run
from tests.test_engine.test_stages import folder, load  # noqa: F401  a fixture

LR = dict(alpha=3.0, beta=1.0, gamma=0.5)


class _Model(nn.Module):
    """Three layers of one shape."""

    def __init__(self, order: tuple[str, ...]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({name: nn.Linear(3, 3) for name in order})


def _wrapper(model: nn.Module, by_group: bool) -> OptimWrapper:
    paramwise = dict(custom_keys={name: dict(lr_mult=factor) for name, factor in LR.items()}) if by_group else None
    optimizer = dict(type="AdamW", lr=0.01, weight_decay=0.1)
    return build_optim_wrapper(model, dict(optimizer=optimizer, paramwise_cfg=paramwise))


def _trained(order: tuple[str, ...], by_group: bool):
    """A model, its optimizer and its schedule after three steps on gradients that tell the layers apart."""
    model = _Model(order)
    wrapper = _wrapper(model, by_group)
    schedule = CosineAnnealingLR(wrapper, T_max=9)
    for step in range(3):
        for name, parameter in model.named_parameters():
            parameter.grad = torch.full_like(parameter, len(name) * LR[name.split(".")[1]] + step)
        wrapper.optimizer.step()
        schedule.step()
    return model, wrapper, schedule


def _by_name(model: nn.Module, wrapper: OptimWrapper) -> dict[str, tuple]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (wrapper.optimizer.state[parameter]["exp_avg"].tolist(), group["lr"], group["initial_lr"])
        for group in wrapper.optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("by_group", [False, True])
def test_another_order(by_group: bool):
    model, wrapper, schedule = _trained(("gamma", "alpha", "beta"), by_group)
    checkpoint = copy.deepcopy(dict(optimizer=wrapper.state_dict(), param_schedulers=[schedule.state_dict()]))
    saved = parameter_groups(wrapper, model)
    other = _Model(tuple(LR))
    resumed = _wrapper(other, by_group)
    theirs = CosineAnnealingLR(resumed, T_max=9)
    assert reorder_state(checkpoint, saved, parameter_groups(resumed, other))
    resumed.load_state_dict(checkpoint["optimizer"])
    theirs.load_state_dict(checkpoint["param_schedulers"][0])
    assert _by_name(other, resumed) == _by_name(model, wrapper)
    assert len({str(state) for state, *_ in _by_name(other, resumed).values()}) == 6
    # The schedule goes on with the rates of the right groups.
    schedule.step()
    theirs.step()
    assert _by_name(other, resumed) == _by_name(model, wrapper)


def test_the_same_order_is_left_alone():
    model, wrapper, _ = _trained(tuple(LR), True)
    assert not reorder_state({}, parameter_groups(wrapper, model), parameter_groups(wrapper, model))


def test_several_optimizers():
    models = {name: _trained(order, False) for name, order in (("one", tuple(LR)), ("two", ("gamma", "beta", "alpha")))}
    both = nn.ModuleDict({name: model for name, (model, *_) in models.items()})
    wrappers = OptimWrapperDict(**{name: wrapper for name, (_, wrapper, _) in models.items()})
    groups = parameter_groups(wrappers, both)
    assert [name for name, _ in groups.items()] == ["one", "two"]
    assert groups["two"][0][0] == "two.heads.gamma.weight"
    turned = dict(groups, two=[groups["two"][0][::-1]])
    checkpoint = dict(optimizer=wrappers.state_dict())
    assert reorder_state(checkpoint, groups, turned)
    assert checkpoint["optimizer"]["two"]["param_groups"][0]["params"] == [5, 4, 3, 2, 1, 0]
    assert checkpoint["optimizer"]["one"]["param_groups"][0]["params"] == [0, 1, 2, 3, 4, 5]


def test_other_parameters_and_groups():
    names = {"": [["a", "b"], ["c"]]}
    for own, message in (
        ([["a", "b"], ["c", "d"]], "d is trained now and was not; resume with the config"),
        ([["a"], ["c"]], "b was trained and is not now; resume with the config"),
        ([["a"], ["b", "c"]], "in other groups; resume with the paramwise_cfg of the run"),
    ):
        with pytest.raises(MTAdaptError, match=re.escape(message)):
            reorder_state({}, names, {"": own})
    assert parameter_groups(_wrapper(_Model(("alpha",)), False), nn.Linear(2, 2)) is None


def test_resuming_with_the_dumped_config(folder: Path, tmp_path: Path):  # noqa: F811
    """Its tasks are in the order of the alphabet: det, drivable, sem_seg."""
    shutil.copytree(folder / "work_dirs/config", tmp_path / "run")
    finetune = tmp_path / "run/finetune"
    (finetune / "epoch_2.pth").unlink()
    (finetune / "finished").unlink()
    (finetune / "last_checkpoint").write_text(str(finetune / "epoch_1.pth"))
    printed = run(
        ROOT / "tools/train.py", tmp_path / "run/config.py", "--work-dir", tmp_path / "run", "--resume", cwd=folder
    )
    assert "the optimizer's state follows it" in printed
    before, after = load(finetune / "epoch_1.pth"), load(finetune / "epoch_2.pth")
    assert _tasks(before) == ["det", "sem_seg", "drivable"] and _tasks(after) == ["det", "drivable", "sem_seg"]
    for name in ("tasks.sem_seg.decode_head.conv_seg.weight", "tasks.drivable.decode_head.conv_seg.weight"):
        assert _moments(after, name)["exp_avg"].shape == after["state_dict"][name].shape
        assert _moments(after, name)["step"] > _moments(before, name)["step"] > 0


def _tasks(checkpoint: dict) -> list[str]:
    names = [name.split(".")[1] for name in checkpoint["state_dict"] if name.startswith("tasks.")]
    return [*dict.fromkeys(names)]


def _moments(checkpoint: dict, name: str) -> dict:
    groups = checkpoint["optimizer"]["param_groups"]
    numbers = {
        each: number
        for names, group in zip(checkpoint["training_state"]["parameters"][""], groups, strict=True)
        for each, number in zip(names, group["params"], strict=True)
    }
    return checkpoint["optimizer"]["state"][numbers[name]]
