"""What is MoEDaViT's own: maps of odd size between the stages, and the models of the paper."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from mmpretrain.models import DaViT

from mtadapt.models import MoEDaViT

ARCH = dict(embed_dims=8, depths=[1, 1], num_heads=[1, 2])


@pytest.mark.parametrize(("height", "width"), [(5, 6), (3, 3), (1, 4)])
def test_maps_of_odd_size_are_padded(height: int, width: int):
    layer = MoEDaViT(arch=ARCH, out_indices=(0, 1)).stages[0].downsample
    x = torch.randn(2, height * width, 8)
    out, size = layer(x, (height, width))
    grid = layer.norm(x).view(2, height, width, 8).permute(0, 3, 1, 2)
    grid = F.pad(grid, (0, width % 2, 0, height % 2))
    expected = F.conv2d(grid, layer.projection.weight, layer.projection.bias, stride=2)
    assert size == expected.shape[2:]
    torch.testing.assert_close(out, expected.flatten(2).transpose(1, 2))


def test_maps_after_downsampling():
    settings = dict(arch=ARCH, out_indices=(1,), out_after_downsample=True)
    expected, twin = DaViT(pad_small_map=True, **settings), MoEDaViT(**settings)
    twin.load_state_dict(expected.state_dict())
    expected.eval()
    twin.eval()
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(twin(x)[0], expected(x)[0])


@pytest.mark.parametrize(("arch", "experts", "layers"), [("tiny", 64, 12), ("small", 32, 24), ("base", 16, 12)])
def test_models_of_the_paper(arch: str, experts: int, layers: int):
    """Every 4 experts hold as many weights as the dense MLP; the base model has experts in every second one."""
    from mtadapt.models.moe import plan_experts

    settings = MoEDaViT.arch_zoo[arch]
    assert settings["embed_dims"] == (128 if arch == "base" else 96)
    every = 2 if arch == "base" else 1
    plan = plan_experts("mlp_experts", dict(num_experts=experts, every=every), 2 * sum(settings["depths"]))
    assert sum(entry is not None for entry in plan) == layers
    assert {entry.banks for entry in plan if entry} == {(experts,)}
