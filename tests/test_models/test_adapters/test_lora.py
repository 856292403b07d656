"""Adapters of single modules against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtadapt.errors import MTAdaptError
from mtadapt.models.adapters import InsertedAdapter, LoRA, TokenBottleneck


def adapted(target: nn.Module, adapter: InsertedAdapter) -> nn.Module:
    target.register_forward_hook(adapter.hook)
    return target


@pytest.mark.parametrize("shape", [(4, 12), (2, 7, 12), (2, 3, 5, 12)])
def test_lora_is_a_change_of_the_weight(shape: tuple[int, ...]):
    """The layer gives what one with the weight ``W + alpha / rank * B A`` gives."""
    linear = nn.Linear(12, 20).double()
    lora = LoRA(linear, rank=4, alpha=6).double()
    tokens = torch.randn(shape, dtype=torch.float64)
    before = linear(tokens)
    adapted(linear, lora)
    assert torch.equal(linear(tokens), before)
    nn.init.normal_(lora.up)
    weight = linear.weight + 6 / 4 * lora.up @ lora.down
    torch.testing.assert_close(linear(tokens), F.linear(tokens, weight, linear.bias), rtol=0, atol=1e-12)


def test_lora_starts_and_learns_as_in_the_paper():
    linear = nn.Linear(100, 40)
    lora = LoRA(linear, rank=5)
    assert [tuple(parameter.shape) for parameter in lora.parameters()] == [(5, 100), (40, 5)]
    # Kaiming-uniform with a = sqrt(5) has the bound 1 / sqrt(fan_in).
    assert 0.09 < lora.down.abs().max() <= 0.1
    adapted(linear, lora)(torch.randn(3, 100)).square().sum().backward()
    assert lora.up.grad.any() and not lora.down.grad.any()


def test_token_bottleneck_formula():
    norm = nn.LayerNorm(16).double()
    adapter = TokenBottleneck(norm, ratio=4).double()
    assert sum(parameter.numel() for parameter in adapter.parameters()) == 16 * 4 + 4 + 4 * 16 + 16
    tokens = torch.randn(2, 6, 16, dtype=torch.float64)
    plain = norm(tokens)
    adapted(norm, adapter)
    assert torch.equal(norm(tokens), plain)
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    hidden = plain @ adapter.down.T + adapter.down_bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    expected = plain + hidden @ adapter.up.T + adapter.up_bias
    torch.testing.assert_close(norm(tokens), expected, rtol=0, atol=1e-12)


def test_start_under_autocast():
    linear = nn.Linear(8, 8)
    tokens = torch.randn(2, 3, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = linear(tokens)
        adapted(linear, LoRA(linear))
        adapted(linear, TokenBottleneck(linear, ratio=2))
        assert torch.equal(linear(tokens), before)


def test_mistakes():
    with pytest.raises(MTAdaptError, match=r"LoRA: rank=0; use at least 1"):
        LoRA(nn.Linear(4, 4), rank=0)
    with pytest.raises(MTAdaptError, match=r"TokenBottleneck: ratio=9 leaves no bottleneck of 8 channels; use 1 to 8"):
        TokenBottleneck(nn.Linear(4, 8), ratio=9)
    conv = nn.Conv2d(3, 8, 1)
    adapted(conv, TokenBottleneck(conv, channels=8))
    with pytest.raises(
        MTAdaptError, match=r"its target gives shape \(1, 8, 4, 4\), not tokens \(\.\.\., 8\); correct targ"
    ):
        conv(torch.zeros(1, 3, 4, 4))
    lstm = nn.LSTM(3, 8)
    adapted(lstm, TokenBottleneck(lstm, channels=8))
    with pytest.raises(MTAdaptError, match=r"its target gives tuple, not tokens"):
        lstm(torch.zeros(2, 1, 3))
