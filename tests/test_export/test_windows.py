"""Attention in windows, written for graphs, against the stock layers."""

from __future__ import annotations

import pytest
import torch
from mmdet.models.backbones.swin import ShiftWindowMSA as MMDetLayer
from mmpretrain.models.backbones.davit import DaViTWindowMSA
from mmpretrain.models.utils import ShiftWindowMSA as MMPretrainLayer
from mmpretrain.models.utils import WindowMSAV2
from mmseg.models.backbones.swin import ShiftWindowMSA as MMSegLayer
from torch import nn

from mtadapt.export.layers import replace_layers
from mtadapt.export.windows import WindowAttention, has_windows

LAYERS = dict(
    mmdet=MMDetLayer,
    mmseg=MMSegLayer,
    mmpretrain=lambda **settings: MMPretrainLayer(**settings, pad_small_map=True),
    davit=lambda **settings: MMPretrainLayer(**settings, pad_small_map=True, window_msa=DaViTWindowMSA),
)
#: Of maps: one window, smaller than one, whole windows, and what needs padding.
SIZES = [(4, 4), (3, 2), (8, 12), (9, 7), (4, 10), (13, 4)]


def _layer(make, shift: int) -> nn.Module:
    torch.manual_seed(0)
    layer = make(embed_dims=12, num_heads=3, window_size=4, shift_size=shift).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


@pytest.mark.parametrize("shift", [0, 2, 3])
@pytest.mark.parametrize("library", LAYERS)
def test_the_stock_layers(library: str, shift: int):
    layer = _layer(LAYERS[library], shift)
    assert has_windows(layer)
    for height, width in SIZES:
        query = torch.randn(2, height * width, 12)
        torch.testing.assert_close(
            WindowAttention(layer)(query, (height, width)), layer(query, (height, width)), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("size", [(4, 4), (4, 9), (8, 6)])
def test_a_map_of_one_window_that_is_not_shifted(size: tuple[int, int]):
    """mmpretrain's own rule where small maps are not padded."""
    layer = _layer(lambda **settings: MMPretrainLayer(**settings, pad_small_map=False), 2)
    query = torch.randn(1, size[0] * size[1], 12)
    torch.testing.assert_close(WindowAttention(layer)(query, size), layer(query, size), atol=1e-5, rtol=1e-5)


def test_what_is_replaced():
    """Another attention in the windows is left as it is."""
    other = MMPretrainLayer(12, 3, 4, window_msa=WindowMSAV2)
    assert not has_windows(other)
    model = nn.Sequential(nn.Sequential(_layer(LAYERS["mmdet"], 2)), other)
    replace_layers(model)
    assert isinstance(model[0][0], WindowAttention) and model[1] is other
