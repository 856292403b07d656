"""Frozen parts: no gradient, no graph, no changed buffer; adapters inside them still train."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mtadapt.engine.freezing import freeze, modules_to_freeze, trainable_without
from mtadapt.errors import MTAdaptError


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
