"""Checkpoints of Swin Transformers in every public layout give the features of the model that they were made from."""

from __future__ import annotations

import re
from pathlib import Path

import mmdet.models
import mmseg.models
import pytest
import timm
import torch
import torchvision
from mmengine.registry import DefaultScope
from mmpretrain.models import SwinTransformer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models import MoESwin
from mtadapt.zoo import load_backbone
from tests.test_zoo.layouts import State, assert_same, behind, randomised, save, some, training, without

ARCH = dict(embed_dims=16, depths=[2, 1, 2, 1], num_heads=[1, 2, 4, 8])
ALL = (0, 1, 2, 3)
IMAGE = (2, 3, 224, 224)


TARGETS = dict(
    mmpretrain=lambda window: SwinTransformer(ARCH, window_size=window, out_indices=ALL, pad_small_map=True),
    mmdet=lambda window: mmdet.models.SwinTransformer(**ARCH, window_size=window),
    mmseg=lambda window: mmseg.models.SwinTransformer(**ARCH, window_size=window),
    mtadapt=lambda window: MoESwin(ARCH, window_size=window),
)


@pytest.fixture(scope="module")
def of_timm() -> nn.Module:
    settings = dict(embed_dim=16, depths=(2, 1, 2, 1), num_heads=(1, 2, 4, 8), num_classes=3)
    return randomised(timm.create_model("swin_tiny_patch4_window7_224", **settings))


def official(state: State) -> State:
    """Merging at the end of a stage in the place of the start of the next; masks and indices stand in the file."""
    renamed = {
        re.sub(r"^layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", name): value
        for name, value in state.items()
    }
    for name in [name for name in renamed if name.endswith("relative_position_bias_table")]:
        block = name.rsplit(".", 2)[0]
        renamed[f"{block}.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
        renamed[f"{block}.attn_mask"] = torch.zeros(4, 49, 49)
    return renamed


def simmim(state: State) -> dict:
    encoder = {**without(official(state), "head"), **some("mask_token")}
    return training({**behind("encoder.", encoder), **some("decoder.0.weight", "decoder.0.bias")}, key="model")


LAYOUTS = dict(
    timm=(lambda state: state, "timm names without a prefix"),
    official=(lambda state: dict(model=official(state)), "official names (timm before 0.9) without a prefix"),
    simmim=(simmim, "SimMIM, official names (timm before 0.9) behind 'encoder.'"),
)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_features_of_timm(tmp_path: Path, of_timm: nn.Module, name: str):
    make, words = LAYOUTS[name]
    path = save(tmp_path / "swin.pth", make(of_timm.state_dict()))
    image = torch.randn(IMAGE)
    expected = of_timm.forward_features(image).permute(0, 3, 1, 2)
    levels = of_timm.forward_intermediates(image, intermediates_only=True)
    for build in TARGETS.values():
        backbone = build(7)
        backbone.eval()
        report = load_backbone(path, backbone)
        assert report.format == words and report.share == 1 and not report.missing and not report.reshaped
        assert sorted(report.new) == sorted(f"norm{n}.{kind}" for n in range(3) for kind in ("weight", "bias"))
        given = backbone(image)
        assert_same([given[3]], [expected])
        # The norms of the first three levels are new: ones and zeros.
        for level, plain in zip(given[:3], levels[:3], strict=True):
            normed = nn.functional.layer_norm(plain.permute(0, 2, 3, 1), plain.shape[1:2]).permute(0, 3, 1, 2)
            assert_same([level], [normed], rtol=1e-3, atol=1e-4)


def test_torchvision(tmp_path: Path):
    model = torchvision.models.SwinTransformer([4, 4], 16, [2, 1, 2, 1], [1, 2, 4, 8], [7, 7], num_classes=3)
    model = randomised(model)
    path = save(tmp_path / "swin.pth", model.state_dict())
    image = torch.randn(IMAGE)
    expected = model.norm(model.features(image)).permute(0, 3, 1, 2)
    for build in TARGETS.values():
        backbone = build(7)
        backbone.eval()
        report = load_backbone(path, backbone)
        assert report.format == "torchvision names without a prefix" and report.share == 1
        assert report.unexpected == ("head.weight", "head.bias")
        assert_same([backbone(image)[3]], [expected])


def test_another_window(tmp_path: Path, of_timm: nn.Module):
    """The order of the pixels has nothing to do with it; the tables are those that mmdet would resize."""
    path = save(tmp_path / "swin.pth", of_timm.state_dict())
    outputs = []
    for build in TARGETS.values():
        backbone = build(12)
        backbone.eval()
        report = load_backbone(path, backbone)
        assert report.windows == (7, 12) and len(report.reshaped) == 6 and report.share == 1
        outputs.append(backbone(torch.ones(IMAGE).tril())[3])
    assert_same(outputs[1:], outputs[:1] * 3)
    name = "stages.0.blocks.1.attn.w_msa.relative_position_bias_table"
    given = of_timm.state_dict()["layers.0.blocks.1.attn.relative_position_bias_table"].T.reshape(1, 1, 13, 13)
    expected = nn.functional.interpolate(given, (23, 23), mode="bicubic", align_corners=False)
    torch.testing.assert_close(backbone.state_dict()[name].T.reshape(1, 1, 23, 23), expected)


SIMMIM = dict(
    type="SimMIM",
    backbone=dict(
        type="SimMIMSwinTransformer", arch=ARCH, img_size=192, stage_cfgs=dict(block_cfgs=dict(window_size=6))
    ),
    neck=dict(type="SimMIMLinearDecoder", in_channels=128, encoder_stride=32),
    head=dict(type="SimMIMHead", patch_size=4, loss=dict(type="PixelReconstructionLoss", criterion="L1", channel=3)),
)


def test_the_simmim_of_mmpretrain(tmp_path: Path):
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = randomised(MODELS.build(SIMMIM))
    path = save(tmp_path / "mm.pth", dict(meta=dict(epoch=1), state_dict=model.state_dict()))
    backbone = SwinTransformer(ARCH, window_size=6)
    backbone.eval()
    report = load_backbone(path, backbone)
    image = torch.randn(1, 3, 192, 192)
    assert_same(backbone(image), SwinTransformer.forward(model.backbone, image), rtol=0, atol=0)
    assert report.share == 1 and report.unexpected == ("mask_token", "neck.decoder.0.weight", "neck.decoder.0.bias")
    assert report.format == "names of the OpenMMLab libraries behind 'backbone.'"


def test_the_second_version_is_refused(tmp_path: Path):
    model = timm.create_model("swinv2_tiny_window8_256", embed_dim=16, depths=(2, 1, 2, 1), num_heads=(1, 2, 4, 8))
    with pytest.raises(MTAdaptError, match=r"of another backbone than this SwinTransformer: "):
        load_backbone(save(tmp_path / "v2.pth", model.state_dict()), TARGETS["mmpretrain"](7))


def test_a_vit_is_refused(tmp_path: Path, of_timm: nn.Module):
    vit = timm.create_model("vit_tiny_patch16_224", depth=2, embed_dim=16, num_heads=1)
    with pytest.raises(MTAdaptError, match="of another backbone than this SwinTransformer"):
        load_backbone(save(tmp_path / "vit.pth", vit.state_dict()), TARGETS["mmdet"](7))


def test_half_of_the_names_changed(tmp_path: Path, of_timm: nn.Module):
    state = of_timm.state_dict()
    half = {name if number % 2 else f"x_{name}": value for number, (name, value) in enumerate(state.items())}
    backbone = TARGETS["mmseg"](7)
    before: dict[str, Tensor] = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(MTAdaptError, match=r"is not in the file \(timm names .*; \d\d\.\d\d % of the parameters match"):
        load_backbone(save(tmp_path / "half.pth", half), backbone)
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
