"""Frozen parts: no gradient, no graph, no changed buffer; adapters inside them still train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtadapt.engine.freezing import freeze, modules_to_freeze, trainable_without
from mtadapt.errors import MTAdaptError

KINDS = ("weight", "bias")


class Adapter(nn.Linear):
    is_adapter = True


def model() -> nn.Module:
    block = nn.ModuleDict(dict(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4), adapter=Adapter(4, 4)))
    return nn.ModuleDict(dict(backbone=nn.ModuleDict(dict(block=block)), head=nn.Linear(4, 2)))


def trainable(module: nn.Module) -> set[str]:
    return {name for name, parameter in module.named_parameters() if parameter.requires_grad}


def test_a_frozen_part_keeps_its_adapters_trainable():
    net = model()
    frozen = freeze(net, ["backbone"])
    assert trainable(net) == {
        "backbone.block.adapter.weight",
        "backbone.block.adapter.bias",
        "head.weight",
        "head.bias",
    }
    assert not net["backbone"]["block"]["norm"].training and net["backbone"]["block"]["adapter"].training
    assert net["head"] not in frozen and net["backbone"]["block"]["conv"] in frozen
    assert trainable_without(model(), modules_to_freeze(model(), [])) == 12 + 4 + 8 + 20 + 10


@pytest.mark.parametrize("names", [["backbone", "*adapter*"], ["backbone.block.*", "backbone"]])
def test_an_adapter_that_is_named_is_frozen(names: list[str]):
    net = model()
    freeze(net, names)
    assert trainable(net) == {"head.weight", "head.bias"}


def test_no_graph_goes_through_a_frozen_part_and_its_buffers_stay():
    net = model()
    freeze(net, ["backbone"])
    block = net["backbone"]["block"]
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    output = block["norm"](block["conv"](torch.rand(2, 3, 4, 4)))
    assert output.grad_fn is None and not output.requires_grad
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


def test_unknown_module():
    with pytest.raises(MTAdaptError, match=r"freeze: 'backbnoe' is no module of ModuleDict; it has backbone, head"):
        modules_to_freeze(model(), ["backbnoe"])


def test_an_exception_trains_with_all_that_is_inside():
    net = model()
    frozen = freeze(net, ["*"], ["backbone.block"])
    inside = ("conv.weight", "conv.bias", "norm.weight", "norm.bias", "adapter.weight", "adapter.bias")
    assert trainable(net) == {f"backbone.block.{name}" for name in inside}
    assert net["backbone"]["block"]["norm"].training and not net["head"].training
    assert net["backbone"] in frozen and net["backbone"]["block"] not in frozen


def test_an_exception_wins_over_names_that_are_more_exact():
    net = model()
    freeze(net, ["backbone", "backbone.block.norm", "head"], ["backbone.*.norm"])
    assert trainable(net) == {f"backbone.block.{name}.{kind}" for name in ("norm", "adapter") for kind in KINDS}
    assert net["backbone"]["block"]["norm"].training


@pytest.mark.parametrize(
    ("exception", "message"),
    [
        ("backbone.blok", "freeze_except: 'backbone.blok' is no module of ModuleDict; it has backbone, head"),
        ("head", r"freeze_except: nothing in 'head' is frozen by freeze=\['backbone'\]; leave it out"),
    ],
)
def test_an_exception_that_excepts_nothing(exception: str, message: str):
    with pytest.raises(MTAdaptError, match=message):
        modules_to_freeze(model(), ["backbone"], [exception])
