"""Windows of attention and position embeddings of MoEViT."""

from __future__ import annotations

import pytest
import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import MultiheadAttention, resize_pos_embed

from mtadapt.errors import MTAdaptError
from mtadapt.models import MoEViT
from mtadapt.models.backbones.moe_vit import Windows
from mtadapt.models.moe import Routes
from tests.test_models.test_moe import reference

ARCH = dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32)


def vit(**settings) -> MoEViT:
    torch.manual_seed(0)
    backbone = MoEViT(**{**dict(arch=ARCH, img_size=64), **settings})
    torch.nn.init.normal_(backbone.pos_embed)
    return backbone.eval()


def crops(height: int, width: int, size: int) -> list[torch.Tensor]:
    """Numbers of the tokens of every window; the last ones of a row or column may be smaller."""
    numbers = torch.arange(height * width).view(height, width)
    rows = range(0, height, size)
    return [numbers[r : r + size, c : c + size].flatten() for r in rows for c in range(0, width, size)]


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 7), (1, 9), (6, 2)])
def test_windows_hold_the_tokens_of_their_place(height: int, width: int):
    size = 3
    tokens = torch.arange(1, 2 * height * width + 1.0).view(2, height * width, 1)
    windows = Windows.of((height, width), size, tokens)
    parts = windows.partition(tokens)
    expected = [set(image[crop, 0].tolist()) for image in tokens for crop in crops(height, width, size)]
    assert [set(part.flatten().tolist()) - {0.0} for part in parts] == expected
    assert torch.equal(windows.reverse(parts), tokens)
    if windows.mask is None:
        assert (parts > 0).all()
    else:
        assert torch.equal(windows.mask.flatten(1), parts[..., 0] > 0)


def test_no_windows_for_a_small_map():
    assert Windows.of((3, 2), 3, torch.zeros(1, 6, 1)) is None


@pytest.mark.parametrize(("height", "width"), [(64, 96), (80, 112), (16, 144)])
def test_attention_in_windows_is_that_of_the_crops(height: int, width: int):
    """Of a single layer: stock attention on every window alone, without padding."""
    backbone = vit(window_size=3, global_indices=[], drop_path_rate=0.1)
    layer = backbone.layers[0]
    stock = MultiheadAttention(16, 2)
    stock.load_state_dict(layer.attn.state_dict())
    h, w = height // 16, width // 16
    x = torch.randn(2, h * w, 16)
    expected = torch.zeros_like(x)
    for crop in crops(h, w, 3):
        expected[:, crop] = stock(x[:, crop])
    windows = Windows.of((h, w), 3, x)
    torch.testing.assert_close(layer.attn(x, windows), expected, rtol=1e-5, atol=1e-6)


def test_attention_experts_in_windows_are_those_of_the_crops():
    backbone = vit(window_size=3, global_indices=[], attention_experts=dict(num_experts=5, top_k=2))
    layer = backbone.layers[0].attn
    for parameter in layer.routers.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 5 * 7, 16)
    expected = torch.zeros_like(x, dtype=torch.float64)
    for crop in crops(5, 7, 3):
        expected[:, crop] = reference.attention(layer, x[:, crop], [{"cls": 1.0}] * 2)
    windows = Windows.of((5, 7), 3, x)
    out = layer(x, Routes.build("cls", ("cls",), 2, x.device), windows.partition, windows.reverse, windows.mask)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)


def test_layers_with_global_attention():
    """Each layer sees what its kind says: a far token changes the output only where attention is global."""
    backbone = vit(window_size=2, global_indices=[2])
    seen = []
    for layer in backbone.layers:
        layer.attn.register_forward_hook(lambda module, args, output: seen.append(args[1] is None))
    backbone(torch.randn(1, 3, 64, 64))
    assert seen == [False, False, True, False]
    assert vit().global_indices == {0, 1, 2, 3}
    assert vit(arch={**ARCH, "num_layers": 12}).global_indices == {2, 5, 8, 11}


def test_one_window_is_global_attention():
    x = torch.randn(1, 3, 64, 48)
    windowed, expected = vit(window_size=4, global_indices=[])(x), vit(window_size=None)(x)
    assert torch.equal(windowed[0], expected[0])


def stock(**settings) -> VisionTransformer:
    torch.manual_seed(1)
    backbone = VisionTransformer(arch=ARCH, **settings)
    torch.nn.init.normal_(backbone.pos_embed)
    return backbone


def test_class_token_twin():
    settings = dict(img_size=64, with_cls_token=True, out_type="raw")
    expected, twin = stock(**settings), MoEViT(arch=ARCH, window_size=None, **settings)
    twin.load_state_dict(expected.state_dict())
    expected.eval()
    twin.eval()
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(twin(x)[0], expected(x)[0])


@pytest.mark.parametrize("img_size", [64, 96, (48, 80)])
def test_position_embedding_of_a_checkpoint_with_class_token(img_size):
    """The same size, a larger one, one that is not square; the grid alone is resized, and the load is strict."""
    weights = stock(img_size=64).state_dict()
    backbone = vit(img_size=img_size)
    backbone.load_state_dict(dict(weights))
    side = (img_size, img_size) if isinstance(img_size, int) else img_size
    grid = weights["pos_embed"][:, 1:].view(1, 4, 4, 16).permute(0, 3, 1, 2)
    size = (side[0] // 16, side[1] // 16)
    if size != (4, 4):
        grid = torch.nn.functional.interpolate(grid, size=size, mode="bicubic", align_corners=False)
    torch.testing.assert_close(backbone.pos_embed, grid.flatten(2).transpose(1, 2), rtol=0, atol=0)


def test_position_embedding_with_class_and_distillation_token():
    weights = stock(img_size=64).state_dict()
    grid = weights["pos_embed"][:, 1:]
    weights["pos_embed"] = torch.cat([torch.ones(1, 2, 16), grid], dim=1)
    del weights["cls_token"]
    backbone = vit(img_size=64)
    backbone.load_state_dict(weights)
    assert torch.equal(backbone.pos_embed, grid)
    twin = MoEViT(arch=ARCH, img_size=96, window_size=None, with_cls_token=True, out_type="raw")
    twin.load_state_dict(weights, strict=False)
    assert torch.equal(twin.pos_embed[:, 0], torch.ones(1, 16))
    assert torch.equal(twin.pos_embed[:, 1:], resize_pos_embed(grid, (4, 4), (6, 6), num_extra_tokens=0))


def test_position_embedding_that_does_not_fit():
    weights = stock(img_size=64).state_dict()
    weights["pos_embed"] = torch.zeros(1, 24, 16)
    with pytest.raises(MTAdaptError, match=r"pos_embed: the checkpoint has the shape \(1, 24, 16\)"):
        vit().load_state_dict(weights)
    with pytest.raises(MTAdaptError, match=r"the same channels"):
        vit(img_size=96, arch={**ARCH, "embed_dims": 32}).load_state_dict(stock(img_size=64).state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(window_size=0), "window_size=0"),
        (dict(with_cls_token=True), "window_size=14, with_cls_token=True"),
        (dict(global_indices=[4]), r"global_indices=\[4\]; the layers are 0 to 3"),
    ],
)
def test_impossible_settings(settings: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        MoEViT(arch=ARCH, **settings)
