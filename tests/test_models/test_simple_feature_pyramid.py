"""The pyramid of plain transformers: strides, values at special weights, and a detector that uses it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mtadapt.errors import MTAdaptError
from mtadapt.models import SimpleFeaturePyramid
from mtadapt.registry import MODELS


@pytest.mark.parametrize(("height", "width"), [(8, 12), (7, 5), (1, 1)])
def test_strides(height: int, width: int):
    neck = SimpleFeaturePyramid(8, 6, num_outs=6)
    outs = neck((torch.randn(2, 3, 4, 4), torch.randn(2, 8, height, width)))
    sizes = [(4 * height, 4 * width), (2 * height, 2 * width), (height, width)]
    for _ in range(3):
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    assert [tuple(out.shape) for out in outs] == [(2, 6, *size) for size in sizes]


def test_values_against_plain_functions():
    """All six levels from the weights by name, in float64."""
    torch.manual_seed(0)
    neck = SimpleFeaturePyramid(8, 4, num_outs=6).double()
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(2, 8, 6, 4, dtype=torch.float64)
    weights = iter(neck.parameters())

    def norm(t: torch.Tensor) -> torch.Tensor:
        scale, shift = next(weights), next(weights)
        mean, variance = t.mean(1, keepdim=True), t.var(1, keepdim=True, unbiased=False)
        return (t - mean) / (variance + 1e-6).sqrt() * scale[:, None, None] + shift[:, None, None]

    def up(t: torch.Tensor) -> torch.Tensor:
        kernel, bias = next(weights), next(weights)
        return torch.einsum("nchw,codk->nohdwk", t, kernel).flatten(4, 5).flatten(2, 3) + bias[:, None, None]

    def out(t: torch.Tensor) -> torch.Tensor:
        t = norm(torch.einsum("nchw,oc->nohw", t, next(weights)[..., 0, 0]))
        return norm(F.conv2d(t, next(weights), padding=1))

    pooled = torch.stack([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]).amax(0)
    wanted = [out(up(F.gelu(norm(up(x))))), out(up(x)), out(x), out(pooled)]
    wanted += [wanted[3][..., ::2, ::2], wanted[3][..., ::4, ::4]]
    assert next(weights, None) is None
    for ours, theirs in zip(neck(x), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


def test_fewer_levels_have_no_idle_weights():
    neck = SimpleFeaturePyramid(8, 4, num_outs=2)
    sum(out.sum() for out in neck(torch.randn(1, 8, 2, 2))).backward()
    assert all(parameter.grad is not None for parameter in neck.parameters())


def test_neck_of_a_stock_detector():
    """ViT and pyramid inside mmdet's FCOS, as written in a stock config."""
    from tests.models import fcos

    cfg = fcos()
    cfg.backbone = dict(
        type="mtadapt.MoEViT",
        arch=dict(embed_dims=8, num_layers=1, num_heads=2, feedforward_channels=16),
        img_size=32,
        mlp_experts=dict(num_experts=4, top_k=2),
    )
    cfg.neck = dict(type="mtadapt.SimpleFeaturePyramid", in_channels=8, out_channels=32)
    cfg["_scope_"] = "mmdet"
    detector = MODELS.build(cfg)
    levels = detector.extract_feat(torch.randn(1, 3, 64, 96))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (32, 16, 24), (32, 8, 12), (32, 4, 6), (32, 2, 3), (32, 1, 2),
    ]  # fmt: skip


def test_wrong_settings():
    for settings in (dict(in_channels=6), dict(in_channels=0), dict(in_channels=8, num_outs=0)):
        with pytest.raises(MTAdaptError, match="multiple of 4 and num_outs at least 1"):
            SimpleFeaturePyramid(**settings)
    with pytest.raises(MTAdaptError, match=r"in_channels=8, but the input has the shape \(1, 16, 2, 2\)"):
        SimpleFeaturePyramid(8)(torch.randn(1, 16, 2, 2))
