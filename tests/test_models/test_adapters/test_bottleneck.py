"""The residual bottleneck: the identity at the start, its formula, and as a plugin of stock ResNets."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope
from torch.nn import functional as F

from mtadapt.errors import MTAdaptError
from mtadapt.models import BottleneckAdapter
from mtadapt.registry import MODELS

PLUGIN = dict(cfg=dict(type="mtadapt.BottleneckAdapter"), stages=(False, True, True, True), position="after_conv3")
RESNET = dict(depth=50, base_channels=8, stem_channels=8, num_stages=4, out_indices=(0, 1, 2, 3))


def randomise(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(5)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)


@pytest.mark.parametrize("conv", ["dense", "depthwise"])
@pytest.mark.parametrize("norm_cfg", [None, dict(type="BN"), dict(type="GN", num_groups=2)])
def test_identity_at_the_start(conv: str, norm_cfg: dict | None):
    adapter = BottleneckAdapter(16, conv=conv, norm_cfg=norm_cfg, act_cfg=dict(type="GELU"))
    feat = 100 * torch.randn(2, 16, 9, 7)
    assert torch.equal(adapter(feat), feat)
    adapter.init_weights()
    assert torch.equal(adapter(feat), feat)
    assert adapter.down.weight.std() > 0.1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(adapter(feat), feat)


@pytest.mark.parametrize(("conv", "parameters"), [("dense", 16 * 4 + 4 + 9 * 16 + 4), ("depthwise", 68 + 9 * 4 + 4)])
def test_formula_and_size(conv: str, parameters: int):
    adapter = BottleneckAdapter(16, ratio=4, conv=conv).double()
    assert sum(parameter.numel() for parameter in adapter.parameters()) == parameters + 4 * 16 + 16
    randomise(adapter)
    feat = torch.randn(2, 16, 5, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    weights = dict(adapter.named_parameters())
    hidden = torch.einsum("oi,nihw->nohw", weights["down.weight"][:, :, 0, 0], feat)
    hidden = (hidden + weights["down.bias"][:, None, None]).clamp(min=0)
    padded = F.pad(hidden, (1, 1, 1, 1))
    summed = torch.zeros_like(hidden)
    for row in range(3):
        for column in range(3):
            window = padded[:, :, row : row + 5, column : column + 6]
            kernel = weights["conv.weight"][:, :, row, column]
            kernel = torch.diag(kernel[:, 0]) if conv == "depthwise" else kernel
            summed += torch.einsum("oi,nihw->nohw", kernel, window)
    hidden = (summed + weights["conv.bias"][:, None, None]).clamp(min=0)
    output = torch.einsum("oi,nihw->nohw", weights["up.weight"][:, :, 0, 0], hidden)
    torch.testing.assert_close(adapter(feat), feat + output + weights["up.bias"][:, None, None], rtol=0, atol=1e-12)


@pytest.mark.parametrize("library", ["mmdet", "mmseg"])
def test_plugin_leaves_a_stock_resnet_as_it_is(library: str):
    """In the library's own scope, and after the ResNet's Kaiming start, which reaches every convolution in it."""
    with DefaultScope.overwrite_default_scope(library):
        stock = MODELS.build(dict(type="ResNet", **RESNET))
        adapted = MODELS.build(dict(type="ResNet", plugins=[PLUGIN], **RESNET))
    adapted.init_weights()
    # The last norm of every block starts at zero, which would hide what follows it.
    for name, module in adapted.named_modules():
        if name.endswith("bn3"):
            torch.nn.init.uniform_(module.weight)
    weights = adapted.state_dict()
    added = {name for name in weights if ".adapter." in name}
    assert weights.keys() - added == stock.state_dict().keys()
    assert {name.split(".")[0] for name in added} == {"layer2", "layer3", "layer4"}
    stock.load_state_dict({name: value for name, value in weights.items() if name not in added})
    images = torch.randn(2, 3, 64, 64)
    for network in (stock, adapted):
        network.train()
    outputs = adapted(images)
    for ours, expected in zip(outputs, stock(images), strict=True):
        assert torch.equal(ours, expected)
    sum(level.square().sum() for level in outputs).backward()
    adapters = [module for module in adapted.modules() if getattr(module, "is_adapter", False)]
    assert len(adapters) == 13
    assert all(adapter.up.weight.grad.any() for adapter in adapters)


def test_mistakes():
    with pytest.raises(MTAdaptError, match=r"conv='deep' is unknown; use 'dense' or 'depthwise'"):
        BottleneckAdapter(16, conv="deep")
    with pytest.raises(
        MTAdaptError, match=r"BottleneckAdapter: ratio=32 leaves no bottleneck of 16 channels; use 1 to 16"
    ):
        BottleneckAdapter(16, ratio=32)
    with pytest.raises(MTAdaptError, match=r"norm_cfg=\{'type': 'GN', 'num_groups': 3\} does not fit 4 channels: "):
        BottleneckAdapter(16, norm_cfg=dict(type="GN", num_groups=3))
