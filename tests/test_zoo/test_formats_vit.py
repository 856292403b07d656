"""Checkpoints of vision transformers in every public layout give the features of the model they were made from."""

from __future__ import annotations

import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import mmseg.models
import pytest
import timm
import torch
import torchvision
from mmengine.registry import DefaultScope
from mmpretrain.models import BEiTViT, DistilledVisionTransformer, VisionTransformer
from mmpretrain.registry import MODELS
from open_clip.model import CLIPVisionCfg, _build_vision_tower
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models import CLIPResNet, MoEViT
from mtadapt.zoo import load_backbone
from tests.test_zoo.layouts import State, assert_same, behind, randomised, save, some, training, without

ARCH = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=128)
TIMM = dict(embed_dim=32, depth=3, num_heads=2, num_classes=4)


def mm_vit(**settings: Any) -> VisionTransformer:
    backbone = VisionTransformer(ARCH, **{**dict(img_size=64, out_type="raw"), **settings})
    backbone.eval()
    return backbone


def timm_vit(name: str = "vit_tiny_patch16_224", **settings: Any) -> nn.Module:
    return randomised(timm.create_model(name, **{**TIMM, "img_size": 64, **settings}))


def chunks(state: State) -> State:
    """DINOv2's training puts its blocks into chunks and keeps their numbers."""
    return {re.sub(r"^blocks\.(\d)\.", r"blocks.0.\1.", name): value for name, value in state.items()}


# What is around the encoder of a pre-training that has the names of timm.
LAYOUTS = dict(
    timm=(lambda state: state, "timm names without a prefix"),
    deit=(lambda state: training(state, key="model"), "timm names without a prefix"),
    mae=(
        lambda state: dict(
            model={
                **without(state, "head"),
                **some("mask_token", "decoder_embed.weight", "decoder_blocks.0.norm1.weight"),
            }
        ),
        "MAE, timm names without a prefix",
    ),
    moco_v3=(
        lambda state: training(
            {
                **behind("module.base_encoder.", without(state, "head")),
                **behind("module.momentum_encoder.", without(state, "head"), change=1),
                **some("module.base_encoder.head.0.weight", "module.predictor.0.weight"),
            }
        ),
        "MoCo v3, timm names behind 'module.base_encoder.'",
    ),
    dino=(
        lambda state: dict(
            student=behind("module.backbone.", state, change=1),
            teacher={**behind("backbone.", state), **some("head.last_layer.weight_g")},
            epoch=100,
        ),
        "DINO, timm names behind 'teacher.backbone.'",
    ),
    dinov2_training=(
        lambda state: dict(
            teacher={**behind("backbone.", chunks(state)), **some("dino_head.mlp.0.weight", "backbone.mask_token")}
        ),
        "DINOv2's names in chunks behind 'backbone.'",
    ),
)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_features_of_timm(tmp_path: Path, name: str):
    make, words = LAYOUTS[name]
    model = timm_vit()
    backbone = mm_vit()
    report = load_backbone(save(tmp_path / "vit.pth", make(model.state_dict())), backbone)
    image = torch.randn(2, 3, 64, 64)
    assert_same(backbone(image), [model.forward_features(image)])
    assert report.format == words and report.share == 1 and not report.reshaped


def test_without_a_class_token(tmp_path: Path):
    """With windows, so without the token: its entry and its position are left out."""
    model = timm_vit(class_token=False, global_pool="avg", fc_norm=False)
    backbone = MoEViT(ARCH, img_size=64, window_size=None)
    backbone.eval()
    load_backbone(save(tmp_path / "vit.pth", model.state_dict()), backbone)
    image = torch.randn(2, 3, 64, 64)
    expected = model.forward_features(image).transpose(1, 2).unflatten(2, (4, 4))
    assert_same(backbone(image), [expected])
    with_token = load_backbone(save(tmp_path / "token.pth", timm_vit().state_dict()), MoEViT(ARCH, img_size=64))
    assert "pos_embed" in with_token.reshaped and with_token.share == 1


def test_torchvision(tmp_path: Path):
    model = randomised(torchvision.models.VisionTransformer(64, 16, 3, 2, 32, 128, num_classes=3))
    backbone = mm_vit()
    report = load_backbone(save(tmp_path / "vit.pth", model.state_dict()), backbone)
    image = torch.randn(2, 3, 64, 64)
    tokens = torch.cat([model.class_token.expand(2, -1, -1), model._process_input(image)], dim=1)
    assert_same(backbone(image), [model.encoder(tokens)])
    assert report.format == "torchvision names without a prefix" and report.unexpected[0].startswith("heads.")


def test_mmseg(tmp_path: Path):
    """Its attention is PyTorch's, its norm after the last layer an option."""
    settings = dict(
        img_size=64, embed_dims=32, num_layers=3, num_heads=2, out_indices=2, final_norm=True, patch_bias=True
    )
    backbone = mmseg.models.VisionTransformer(**settings, norm_cfg=dict(type="LN", eps=1e-6))
    backbone.eval()
    model = timm_vit()
    report = load_backbone(save(tmp_path / "vit.pth", model.state_dict()), backbone)
    image = torch.randn(2, 3, 64, 64)
    expected = model.forward_features(image)[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    assert_same(backbone(image), [expected])
    assert report.share == 1 and "layers.0.attn.attn.in_proj_weight" in report.matched
    other = mm_vit()
    load_backbone(save(tmp_path / "mmseg.pth", dict(state_dict=behind("backbone.", backbone.state_dict()))), other)
    assert_same(other(image), [model.forward_features(image)])


@pytest.mark.parametrize("side", [96, 48])
def test_another_image_size(tmp_path: Path, side: int):
    """As timm resizes it, but for its filter against aliasing."""
    model = timm_vit()
    backbone = mm_vit(img_size=side)
    report = load_backbone(save(tmp_path / "vit.pth", model.state_dict()), backbone)
    assert report.reshaped == ("pos_embed",)
    expected = timm.layers.resample_abs_pos_embed(model.pos_embed, [side // 16] * 2, antialias=False)
    torch.testing.assert_close(backbone.pos_embed, expected)


def test_an_oblong_image(tmp_path: Path):
    model = timm_vit()
    backbone = mm_vit(img_size=(64, 96))
    load_backbone(save(tmp_path / "vit.pth", model.state_dict()), backbone)
    expected = timm.layers.resample_abs_pos_embed(model.pos_embed, [4, 6], antialias=False)
    torch.testing.assert_close(backbone.pos_embed, expected)


def test_the_token_of_distillation(tmp_path: Path):
    model = timm_vit("deit_tiny_distilled_patch16_224")
    path = save(tmp_path / "deit.pth", dict(model=model.state_dict()))
    backbone = DistilledVisionTransformer(ARCH, img_size=64, out_type="raw")
    backbone.eval()
    load_backbone(path, backbone)
    image = torch.randn(2, 3, 64, 64)
    assert_same(backbone(image), [model.forward_features(image)])
    with pytest.raises(MTAdaptError, match=r"this VisionTransformer: the file's dist_token is not in the model"):
        load_backbone(path, mm_vit())
    report = load_backbone(path, MoEViT(ARCH, img_size=64))
    assert "dist_token" in report.unexpected


def test_dinov2(tmp_path: Path):
    """Layer scale, patches of 14 pixels; timm's file has no position for the class token."""
    model = timm_vit("vit_small_patch14_dinov2", img_size=56)
    state = {**model.state_dict(), **some("mask_token")}
    backbone = mm_vit(img_size=56, patch_size=14, layer_scale_init_value=1e-5)
    report = load_backbone(save(tmp_path / "dinov2.pth", state), backbone)
    image = torch.randn(2, 3, 56, 56)
    assert_same(backbone(image), [model.forward_features(image)])
    assert report.format == "DINOv2, timm names without a prefix" and report.share == 1
    bare = timm_vit("vit_small_patch14_dinov2", img_size=56, no_embed_class=True)
    load_backbone(save(tmp_path / "bare.pth", bare.state_dict()), backbone)
    assert_same(backbone(image), [bare.forward_features(image)])
    with pytest.raises(MTAdaptError, match=r"the file's layers\.0\.attn\.gamma1\.weight is not in the model"):
        load_backbone(tmp_path / "dinov2.pth", mm_vit(img_size=56, patch_size=14))


def test_registers_are_refused(tmp_path: Path):
    """mmpretrain's ViT has no place for them, and without them it computes something else."""
    model = timm_vit("vit_small_patch14_reg4_dinov2", img_size=56)
    backbone = mm_vit(img_size=56, patch_size=14, layer_scale_init_value=1e-5)
    with pytest.raises(MTAdaptError, match=r"the file's register_tokens is not in the model \(DINOv2, timm names"):
        load_backbone(save(tmp_path / "reg.pth", model.state_dict()), backbone)


def beit(window: int = 4, **settings: Any) -> BEiTViT:
    backbone = BEiTViT(ARCH, **{**dict(img_size=window * 16, out_type="raw", final_norm=False), **settings})
    backbone.eval()
    return backbone


def test_beit(tmp_path: Path):
    model = timm_vit("beit_base_patch16_224")
    backbone = beit()
    report = load_backbone(save(tmp_path / "beit.pth", dict(model=model.state_dict())), backbone)
    image = torch.randn(2, 3, 64, 64)
    assert_same(backbone(image), [model.forward_features(image)])
    assert report.format == "BEiT, timm names without a prefix" and report.share == 1
    larger = beit(6)
    report = load_backbone(tmp_path / "beit.pth", larger)
    assert len(report.reshaped) == 3 and report.windows == (4, 6)
    name = "layers.0.attn.relative_position_bias_table"
    given, resized = model.state_dict()["blocks.0.attn.relative_position_bias_table"], larger.state_dict()[name]
    assert torch.equal(resized[-3:], given[-3:])
    grid = given[:-3].T.reshape(1, 2, 7, 7)
    expected = nn.functional.interpolate(grid, (11, 11), mode="bicubic", align_corners=False)
    torch.testing.assert_close(resized[:-3].T.reshape(1, 2, 11, 11), expected)


def test_beit_with_one_table_for_all_layers(tmp_path: Path):
    """The layout of its pre-training; fine-tuning gives every layer a copy."""
    model = timm_vit("beit_base_patch16_224", use_shared_rel_pos_bias=True, use_rel_pos_bias=False)
    state = {**without(model.state_dict(), "head", "fc_norm"), **some("mask_token", "lm_head.weight")}
    path = save(tmp_path / "beit.pth", dict(model=state))
    image = torch.randn(2, 3, 64, 64)
    for backbone in (beit(), beit(use_rel_pos_bias=False, use_shared_rel_pos_bias=True)):
        report = load_backbone(path, backbone)
        assert_same(backbone(image), [model.forward_features(image)])
        assert report.share == 1 and report.format.startswith("BEiT, ")
    with pytest.raises(MTAdaptError, match=r"not in the (model|file)"):
        load_backbone(path, mm_vit())


def clip_vit(act: str) -> VisionTransformer:
    """The settings of CLIP's towers: OpenAI trained with QuickGELU, and so are open_clip's ``-quickgelu`` models."""
    layers = dict(act_cfg=dict(type=act))
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return mm_vit(pre_norm=True, norm_cfg=dict(type="LN", eps=1e-5), layer_cfgs=layers)


def clip_tower(quick: bool, **settings: Any) -> nn.Module:
    config = CLIPVisionCfg(**{**dict(layers=3, width=32, head_width=16, patch_size=16, image_size=64), **settings})
    return randomised(_build_vision_tower(16, config, quick_gelu=quick))


def whole_clip(visual: nn.Module) -> State:
    """The text tower stands beside the visual one, under names that are alike."""
    state = behind("visual.", visual.state_dict())
    text = some("transformer.resblocks.0.ln_1.weight", "token_embedding.weight", "text_projection", "ln_final.bias")
    return {**some("positional_embedding"), **text, **state, "logit_scale": torch.tensor(4.6)}


def clip_tokens(tower: nn.Module, image: Tensor) -> Tensor:
    """All tokens after the last norm, before the projection."""
    return tower.ln_post(tower.transformer(tower._embeds(image)))


@pytest.mark.parametrize("quick", [True, False])
def test_clip(tmp_path: Path, quick: bool):
    tower = clip_tower(quick)
    backbone = clip_vit("QuickGELU" if quick else "GELU")
    path = save(tmp_path / "clip.pt", training(behind("module.", whole_clip(tower))))
    report = load_backbone(path, backbone)
    image = torch.randn(2, 3, 64, 64)
    assert_same(backbone(image), [clip_tokens(tower, image)])
    assert report.format == "CLIP, CLIP's names behind 'module.visual.'" and report.share == 1
    assert "proj" in report.unexpected and "(transformer)" in report.grouped()
    with pytest.raises(MTAdaptError, match=r"the file's pre_norm\.weight is not in the model"):
        load_backbone(path, mm_vit())


def test_clip_of_timm(tmp_path: Path):
    model = timm_vit("vit_base_patch32_clip_224", patch_size=16)
    backbone = clip_vit("GELU")
    load_backbone(save(tmp_path / "timm.pth", model.state_dict()), backbone)
    image = torch.randn(2, 3, 64, 64)
    assert_same(backbone(image), [model.forward_features(image)])


class OpenAI(nn.Module):
    """As in OpenAI's archives: TorchScript, half precision, and a few numbers beside the weights."""

    def __init__(self, visual: nn.Module) -> None:
        super().__init__()
        self.visual = visual
        self.register_buffer("input_resolution", torch.tensor(64))

    def forward(self, image: Tensor) -> Tensor:
        return self.visual(image)


def test_the_archives_of_openai(tmp_path: Path):
    tower = clip_tower(True).half().float()
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.trace(OpenAI(deepcopy(tower)), torch.randn(1, 3, 64, 64), check_trace=False).half().save(str(path))
    backbone = clip_vit("QuickGELU")
    before = backbone.pos_embed.clone()
    with pytest.raises(
        MTAdaptError, match=r"not read, because it is a TorchScript archive, which holds code; .*--trust"
    ):
        load_backbone(path, backbone)
    assert torch.equal(backbone.pos_embed, before)
    load_backbone(path, backbone, trust_checkpoint=True)
    image = torch.randn(2, 3, 64, 64)
    assert_same(backbone(image), [clip_tokens(tower, image)])


def test_the_resnet_of_clip(tmp_path: Path):
    layers = (1, 2, 1, 1)
    tower = clip_tower(False, layers=layers, width=16, head_width=16)
    backbone = CLIPResNet(layers, width=16)
    backbone.eval()
    report = load_backbone(save(tmp_path / "rn.pt", whole_clip(tower)), backbone)
    image = torch.randn(2, 3, 64, 64)
    expected = tower.forward_intermediates(image)["image_intermediates"][1:]
    assert_same(backbone(image), expected, rtol=0, atol=0)
    assert [value.shape[1] for value in expected] == [64, 128, 256, 512]
    assert report.format == "CLIP, CLIP's names behind 'visual.'" and report.share == 1
    assert report.grouped().endswith("(logit_scale)") and "(attnpool)" in report.grouped()


def mm_model(config: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        return randomised(MODELS.build(config))


DECODER = dict(
    type="MAEPretrainDecoder", num_patches=16, embed_dim=32, decoder_embed_dim=16, decoder_depth=1, decoder_num_heads=2
)
MAE_HEAD = dict(type="MAEPretrainHead", loss=dict(type="PixelReconstructionLoss", criterion="L2"))
MLP = dict(type="NonLinearNeck", in_channels=32, hid_channels=8, out_channels=8, with_avg_pool=False)
MOCO_HEAD = dict(type="MoCoV3Head", predictor={**MLP, "in_channels": 8}, loss=dict(type="CrossEntropyLoss"))
MOCO_BACKBONE = dict(type="MoCoV3ViT", arch=ARCH, img_size=64, patch_size=16, stop_grad_conv1=True, out_type="raw")
MM = dict(
    mae=dict(type="MAE", backbone=dict(type="MAEViT", arch=ARCH, img_size=64), neck=DECODER, head=MAE_HEAD),
    moco_v3=dict(type="MoCoV3", backbone=MOCO_BACKBONE, neck=MLP, head=MOCO_HEAD, base_momentum=0.01),
)


@pytest.mark.parametrize("name", MM)
def test_the_classes_of_mmpretrain(tmp_path: Path, name: str):
    model = mm_model(MM[name])
    path = save(tmp_path / "mm.pth", dict(meta=dict(epoch=1), state_dict=model.state_dict()))
    backbone = mm_vit()
    report = load_backbone(path, backbone)
    image = torch.randn(2, 3, 64, 64)
    expected = VisionTransformer.forward(model.backbone, image)
    assert_same(backbone(image), expected, rtol=0, atol=0)
    assert report.format.endswith("behind 'backbone.'") and report.share == 1


def test_the_beit_of_mmpretrain(tmp_path: Path):
    backbone = dict(
        type="BEiTPretrainViT", arch=ARCH, img_size=64, final_norm=True, use_rel_pos_bias=False,
        use_shared_rel_pos_bias=True, layer_scale_init_value=0.1,
    )  # fmt: skip
    model = mm_model(backbone)
    path = save(tmp_path / "mm.pth", dict(state_dict={**behind("backbone.", model.state_dict())}))
    target = beit(final_norm=True, use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
    report = load_backbone(path, target)
    image = torch.randn(2, 3, 64, 64)
    assert_same(target(image), BEiTViT.forward(model, image), rtol=0, atol=0)
    assert report.share == 1 and report.unexpected == ("mask_token",)
