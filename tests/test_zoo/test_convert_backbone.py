"""Checkpoints in the names of other libraries are loaded strictly there, compute the same, and come back to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from mmpretrain.models import ResNet, SwinTransformer, VisionTransformer
from safetensors.torch import load_file
from torch import nn

from mtadapt.errors import MTAdaptError
from mtadapt.zoo.files import packaged_weights
from tests.test_zoo.layouts import assert_same, behind, randomised, save, some
from tools.model_converters import convert_backbone

SWIN = dict(embed_dims=16, depths=[2, 1, 2, 1], num_heads=[1, 2, 4, 8])
VIT = dict(embed_dims=32, num_layers=3, num_heads=2, feedforward_channels=128)


def headless(model: nn.Module, head: str) -> nn.Module:
    setattr(model, head, nn.Identity())
    model.eval()
    return model


def timm_model(name: str, **settings: object) -> nn.Module:
    model = timm.create_model(name, num_classes=0, **settings)
    model.eval()
    return model


def swin(window: int = 7) -> nn.Module:
    return SwinTransformer(SWIN, window_size=window, out_indices=(3,))


BUILD = dict(
    resnet=dict(
        mm=lambda: ResNet(18),
        torchvision=lambda: headless(torchvision.models.resnet18(), "fc"),
        timm=lambda: timm_model("resnet18"),
    ),
    vit=dict(
        mm=lambda: VisionTransformer(VIT, img_size=64, out_type="cls_token"),
        torchvision=lambda: headless(torchvision.models.VisionTransformer(64, 16, 3, 2, 32, 128), "heads"),
        timm=lambda: timm_model("vit_tiny_patch16_224", embed_dim=32, depth=3, num_heads=2, img_size=64),
    ),
    swin=dict(
        mm=swin,
        torchvision=lambda: headless(
            torchvision.models.SwinTransformer([4, 4], 16, [2, 1, 2, 1], [1, 2, 4, 8], [7, 7]), "head"
        ),
        timm=lambda: timm_model(
            "swin_tiny_patch4_window7_224", embed_dim=16, depths=(2, 1, 2, 1), num_heads=(1, 2, 4, 8)
        ),
    ),
)


def features(model: nn.Module, image: torch.Tensor) -> torch.Tensor:
    model.eval()
    output = model(image)
    output = output[-1] if isinstance(output, tuple) else output
    return output.mean((2, 3)) if output.dim() == 4 else output


@pytest.mark.parametrize("family", BUILD)
@pytest.mark.parametrize("source", ["mm", "torchvision", "timm"])
def test_there_and_back(tmp_path: Path, family: str, source: str, capsys: pytest.CaptureFixture):
    """Every pair of libraries; the other one takes all entries and has no further ones."""
    model = randomised(BUILD[family][source]())
    image = torch.randn(1, 3, *([64, 64] if family == "vit" else [224, 224]))
    expected = features(model, image)
    start = save(tmp_path / "start.pth", dict(state_dict={**behind("backbone.", model.state_dict()), **some("neck.x")}))
    for to in BUILD[family]:
        convert_backbone.main([str(start), str(tmp_path / f"{to}.pth"), "--to", to])
        other = BUILD[family][to]()
        other.load_state_dict(torch.load(tmp_path / f"{to}.pth"), strict=True)
        assert_same([features(other, image)], [expected])
        convert_backbone.main([str(tmp_path / f"{to}.pth"), str(tmp_path / "back.safetensors"), "--to", source])
        back, given = load_file(tmp_path / "back.safetensors"), model.state_dict()
        assert back.keys() == given.keys() and all(torch.equal(back[name], given[name]) for name in given)
    printed = capsys.readouterr().out
    assert "behind 'backbone.'" in printed and "left out: neck.x\n" in printed


def test_what_another_library_has_no_place_for(tmp_path: Path, capsys: pytest.CaptureFixture):
    """Norms of further outputs and a mask token may stay behind; layer scale may not."""
    out = str(tmp_path / "out.pth")
    state = SwinTransformer(SWIN, out_indices=(0, 1, 2, 3)).state_dict() | some("mask_token")
    convert_backbone.main([str(save(tmp_path / "swin.pth", state)), out, "--to", "timm"])
    BUILD["swin"]["timm"]().load_state_dict(torch.load(out), strict=True)
    scaled = VisionTransformer(VIT, img_size=64, layer_scale_init_value=0.1).state_dict()
    path = save(tmp_path / "vit.pth", scaled)
    convert_backbone.main([str(path), out, "--to", "timm"])
    assert "blocks.2.ls2.gamma" in torch.load(out)
    with pytest.raises(
        MTAdaptError, match=r"vit\.pth: names of the Op.*: torchvision has no place for layers\.0\.attn\.gam"
    ):
        convert_backbone.main([str(path), out, "--to", "torchvision"])
    with pytest.raises(MTAdaptError, match=r"torchvision has no EfficientNet-lite0; convert it to another library$"):
        convert_backbone.main(["package:efficientnet-lite0", out, "--to", "torchvision"])
    with pytest.raises(
        MTAdaptError, match=r"x\.pth: the names are of no known backbone, the first is x; give its prefix$"
    ):
        convert_backbone.main([str(save(tmp_path / "x.pth", some("x"))), out, "--to", "mm"])
    with pytest.raises(MTAdaptError, match=r"x\.onnx: the name of the file must end in \.pth or \.safetensors$"):
        convert_backbone.main([str(path), "x.onnx", "--to", "mm"])


def test_efficientnet(tmp_path: Path):
    """The package's weights in timm's own class, but for its head."""
    convert_backbone.main(["package:efficientnet-lite0", str(tmp_path / "timm.pth"), "--to", "timm"])
    model = timm.create_model("tf_efficientnet_lite0")
    missing, unexpected = model.load_state_dict(torch.load(tmp_path / "timm.pth"), strict=False)
    assert not unexpected and {name.split(".")[0] for name in missing} == {"conv_head", "bn2", "classifier"}
    given = torch.load(packaged_weights())
    assert torch.equal(model.blocks[1][0].conv_pw.weight, given["_blocks.1._expand_conv.weight"])
