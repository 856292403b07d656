"""A pre-trained backbone in the stock models of three libraries, and checkpoints of other backbones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import mmdet.models
import mmseg.models
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmpretrain.models import ResNet, ResNetV1c, SwinTransformer, SwinTransformerV2, VisionTransformer
from mmpretrain.models.selfsup.simmim import SimMIMSwinTransformer
from mmpretrain.models.utils.attention import WindowMSA
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models import MoESwin
from mtadapt.registry import MODELS
from mtadapt.zoo import load_backbone
from tests.command_line import ROOT

ARCH = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
ALL = (0, 1, 2, 3)
VIT = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)


def pretrained(window: int = 6, **settings) -> SimMIMSwinTransformer:
    """The backbone of the pre-training: one output, a mask token, every entry random."""
    torch.manual_seed(0)
    stages = dict(block_cfgs=dict(window_size=window))
    backbone = SimMIMSwinTransformer(ARCH, img_size=192, stage_cfgs=stages, **settings)
    return random_(backbone)


def random_(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter) / 8)
    return module


def save(path: Path, state: Mapping[str, Tensor], prefix: str = "backbone.") -> Path:
    """The file of a pre-training: its branches stand beside the backbone."""
    weights = {f"{prefix}{name}": value for name, value in state.items()}
    weights |= {f"contrastive.momentum_backbone.{name}": value + 1 for name, value in state.items()}
    weights["masked_image.decoder.weight"] = torch.ones(2)
    torch.save(dict(meta=dict(iter=10), state_dict=weights, message_hub=dict()), path)
    return path


def mmpretrain_swin(window: int = 7, **settings) -> nn.Module:
    return SwinTransformer(ARCH, **{**dict(window_size=window, out_indices=ALL, pad_small_map=True), **settings})


def mmdet_swin(window: int = 7, **settings) -> nn.Module:
    return mmdet.models.SwinTransformer(**ARCH, window_size=window, **settings)


def mmseg_swin(window: int = 7, **settings) -> nn.Module:
    return mmseg.models.SwinTransformer(**ARCH, window_size=window, **settings)


def moe_swin(window: int = 7) -> nn.Module:
    return MoESwin(ARCH, window_size=window)


SWINS = [mmpretrain_swin, mmdet_swin, mmseg_swin, moe_swin]


@pytest.mark.parametrize("window", [6, 7, 12])
def test_the_three_libraries_compute_the_same(tmp_path: Path, window: int):
    """Also the same as mmdet's own loading, from a file without the index, which is all that it needs to resize."""
    state = pretrained().state_dict()
    path = save(tmp_path / "hvp.pth", state)
    image = torch.randn(2, 3, 96, 128)
    outputs = []
    for build in SWINS:
        backbone = build(window)
        backbone.eval()
        loaded = load_backbone(path, backbone)
        assert "mask_token" in loaded.unexpected and loaded.backbone == type(backbone).__name__
        assert sorted(loaded.new) == sorted(f"norm{level}.{kind}" for level in range(3) for kind in ("weight", "bias"))
        assert len(loaded.reshaped) == (0 if window == 6 else 5)
        outputs.append(backbone(image))
    for output in outputs[1:]:
        for given, expected in zip(output, outputs[0], strict=True):
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
    light = {f"backbone.{name}": value for name, value in state.items() if not name.endswith("index")}
    torch.save(light, tmp_path / "light.pth")
    checkpoint = ConfigDict(type="Pretrained", checkpoint=str(tmp_path / "light.pth"))
    own = mmdet_swin(window, init_cfg=checkpoint)
    own.init_weights()
    own.eval()
    for given, expected in zip(outputs[1], own(image), strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", SWINS)
def test_an_equal_window_is_loaded_bit_for_bit(tmp_path: Path, build):
    state = pretrained().state_dict()
    backbone = build(6)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    loaded = load_backbone(save(tmp_path / "hvp.pth", state), backbone)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, before[name] if name in loaded.new else state[name]), name
    assert all(torch.equal(before[name], torch.full_like(before[name], "weight" in name)) for name in loaded.new)


@pytest.mark.parametrize("build", SWINS)
def test_another_window_changes_the_tables_alone(tmp_path: Path, build):
    state = pretrained().state_dict()
    backbone = build(7)
    index = {name: value.clone() for name, value in backbone.state_dict().items() if name.endswith("index")}
    loaded = load_backbone(save(tmp_path / "hvp.pth", state), backbone)
    for name, value in backbone.state_dict().items():
        if name in index:
            assert torch.equal(value, index[name])
        elif name not in loaded.new and name not in loaded.reshaped:
            assert torch.equal(value, state[name]), name
    assert loaded.windows == (6, 7)


def test_what_is_logged(tmp_path: Path):
    path = save(tmp_path / "hvp.pth", pretrained().state_dict())
    loaded = load_backbone(path, mmdet_swin())
    total = len([name for name in mmdet_swin().state_dict() if not name.endswith("index")])
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(loaded.matched) == total - 6 and loaded.sha256 == digest
    assert str(loaded) == (
        f"hvp.pth: {total - 6} of {total} entries of SwinTransformer loaded, 5 (stages.0.blocks.0.attn.w_msa."
        "relative_position_bias_table, ...) of them resized from window 6 to 7; norms of further outputs stay new: "
        f"6 (norm0.weight, ...); not used: 1 (mask_token), {len(pretrained().state_dict())} (contrastive), "
        f"1 (masked_image); 100 % of the parameters, names of the OpenMMLab libraries behind 'backbone.', SHA-256 "
        f"{digest[:8]}"
    )
    assert f"SHA-256     {digest}\n" in loaded.table() and "windows     6 to 7" in loaded.table()


def test_the_report_as_json(tmp_path: Path):
    loaded = load_backbone(save(tmp_path / "hvp.pth", pretrained().state_dict()), mmdet_swin())
    given = json.loads(json.dumps(loaded.as_dict()))
    assert (given["source"], given["backbone"], given["share"]) == ("hvp.pth", "SwinTransformer", 1)
    assert (given["matched"], given["missing"], given["new"], given["reshaped"]) == (len(loaded.matched), 0, 6, 5)
    assert given["windows"] == [6, 7] and given["first_new"][0] == "norm0.weight" and "first_missing" not in given
    assert given["unexpected"] == len(loaded.unexpected) and len(json.dumps(given)) < 2000


PREFIXES = ("backbone.", "module.backbone.", "", "module.")


@pytest.mark.parametrize("prefix", [*PREFIXES, "encoder.body."])
def test_prefixes(tmp_path: Path, prefix: str):
    state = pretrained(7, out_indices=ALL).state_dict()
    path = save(tmp_path / "hvp.pth", state, prefix)
    backbone = mmdet_swin()
    loaded = load_backbone(path, backbone, prefix=None if prefix in PREFIXES else prefix)
    assert not loaded.new and not loaded.reshaped
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_the_momentum_encoder_by_its_prefix(tmp_path: Path):
    state = pretrained(7, out_indices=ALL).state_dict()
    backbone = mmseg_swin()
    load_backbone(save(tmp_path / "hvp.pth", state), backbone, prefix="contrastive.momentum_backbone.")
    assert torch.equal(backbone.norm3.weight, state["norm3.weight"] + 1)


def test_the_newest_checkpoint_of_a_folder(tmp_path: Path):
    state = pretrained(7, out_indices=ALL).state_dict()
    save(tmp_path / "iter_5.pth", {name: value * 0 for name, value in state.items()})
    path = save(tmp_path / "iter_10.pth", state)
    backbone = mmdet_swin()
    assert load_backbone(tmp_path, backbone).source == path.name
    assert torch.equal(backbone.norm0.weight, state["norm0.weight"])


def test_masks_of_old_checkpoints_are_left_out(tmp_path: Path):
    state = {**pretrained(7).state_dict(), "stages.2.blocks.1.attn.attn_mask": torch.zeros(1)}
    report = load_backbone(save(tmp_path / "old.pth", state), mmdet_swin())
    assert not any("attn_mask" in name for name in report.matched) and report.share == 1


@pytest.mark.parametrize("build", [ResNet, mmdet.models.ResNet, mmseg.models.ResNet])
def test_resnet(tmp_path: Path, build):
    state = random_(ResNet(18)).state_dict()
    backbone = build(18)
    loaded = load_backbone(save(tmp_path / "r18.pth", state), backbone)
    assert len(loaded.matched) == len(state) and loaded.share == 1
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())


def test_vit_of_another_image_size(tmp_path: Path):
    """mmpretrain's own hook resizes its position embedding; the token's stays."""
    state = random_(VisionTransformer(VIT, img_size=64)).state_dict()
    state["mask_token"] = torch.zeros(1, 1, 16)
    backbone = VisionTransformer(VIT, img_size=96)
    loaded = load_backbone(save(tmp_path / "vit.pth", state), backbone)
    expected = VisionTransformer.resize_pos_embed(state["pos_embed"], (4, 4), (6, 6), "bicubic", 1)
    assert torch.equal(backbone.pos_embed, expected) and "mask_token" in loaded.unexpected
    same = VisionTransformer(VIT, img_size=64)
    load_backbone(tmp_path / "vit.pth", same)
    assert torch.equal(same.pos_embed, state["pos_embed"])


@pytest.mark.parametrize("build", [mmpretrain_swin, mmdet_swin, mmseg_swin])
def test_absolute_position_embedding_of_another_image_size(tmp_path: Path, build):
    state = pretrained(7, use_abs_pos_embed=True).state_dict()
    sizes = dict(img_size=224) if build is mmpretrain_swin else dict(pretrain_img_size=224)
    backbone = build(7, use_abs_pos_embed=True, **sizes)
    loaded = load_backbone(save(tmp_path / "hvp.pth", state), backbone)
    expected = VisionTransformer.resize_pos_embed(state["absolute_pos_embed"], (48, 48), (56, 56), "bicubic", 0)
    assert loaded.reshaped == ("absolute_pos_embed",) and torch.equal(backbone.absolute_pos_embed, expected)
    assert "1 (absolute_pos_embed) of them resized; norms" in str(loaded)


def test_swin_v2_computes_its_tables(tmp_path: Path):
    settings = dict(ARCH, extra_norm_every_n_blocks=0)
    state = random_(SwinTransformerV2(settings, img_size=192, window_size=6)).state_dict()
    backbone = SwinTransformerV2(settings, img_size=224, window_size=7)
    own = {name: value.clone() for name, value in backbone.named_buffers()}
    load_backbone(save(tmp_path / "v2.pth", state), backbone)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, own[name] if name in own else state[name]), name


def other_swin(**changes) -> nn.Module:
    return mmdet.models.SwinTransformer(**{**ARCH, **changes})


OTHERS = [
    (lambda: other_swin(depths=[1, 1, 1, 1]), r"the file's stages\.2\.blocks\.1\.norm1\.weight is not in the model"),
    (lambda: other_swin(depths=[1, 1, 3, 1]), r"stages\.2\.blocks\.2\.norm1\.weight is not in the file"),
    (
        lambda: other_swin(num_heads=[2, 2, 4, 8]),
        r"has the shape \(121, 1\), the model \(169, 2\) \(names of the OpenMMLab",
    ),
    (lambda: other_swin(embed_dims=16), r"size mismatch for patch_embed\.projection\.weight"),
    (
        lambda: ResNet(18),
        r"conv1\.weight is not there behind any known prefix, the file begins with backbone\.mask_token;",
    ),
    (lambda: VisionTransformer(VIT, img_size=64), r"size mismatch for patch_embed\.projection\.weight"),
    (lambda: mmpretrain_swin(use_abs_pos_embed=True), "absolute_pos_embed is not in the file"),
]


@pytest.mark.parametrize(("build", "mismatch"), OTHERS)
def test_another_backbone(tmp_path: Path, build, mismatch: str):
    path = save(tmp_path / "hvp.pth", pretrained().state_dict())
    backbone = build()
    with pytest.raises(MTAdaptError, match=mismatch) as error:
        load_backbone(path, backbone)
    message = str(error.value)
    assert message.startswith(f"{path}: the checkpoint of another backbone than this {type(backbone).__name__}: ")
    assert message.endswith("; give the backbone the type, depth and width of the checkpoint's") and "\n" not in message


@pytest.mark.parametrize(("file", "model", "name"), [(50, 18, "layer1.0"), (34, 18, "layer1.2"), (18, 34, "layer1.2")])
def test_another_depth_of_resnet(tmp_path: Path, file: int, model: int, name: str):
    path = save(tmp_path / "r.pth", ResNet(file).state_dict())
    with pytest.raises(MTAdaptError, match=f"of another backbone than this ResNet: .*{name}.conv1.weight"):
        load_backbone(path, mmdet.models.ResNet(model))


def test_a_few_missing_entries_are_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Norms of outputs are small; without those of any level the file is of no Swin Transformer that gives outputs."""
    state = {name: value for name, value in pretrained().state_dict().items() if not name.startswith("norm3")}
    path = save(tmp_path / "hvp.pth", state)
    backbone = mmdet_swin()
    with pytest.raises(MTAdaptError, match=r"99\.\d\d % of the parameters and 90\.\d* % of the entries match"):
        load_backbone(path, backbone)
    loaded = load_backbone(path, backbone, min_match=0.9)
    norms = [f"norm{level}.{kind}" for level in range(4) for kind in ("weight", "bias")]
    assert list(loaded.missing) == norms and not loaded.new
    counted = {name: value.numel() for name, value in backbone.named_parameters()}
    assert loaded.share == 1 - sum(counted[name] for name in norms) / sum(counted.values())
    assert "; MISSING, left as initialised: 8 (norm0.weight, ...)" in str(loaded) and f"{loaded.share:.2%}"[:-1] in str(
        loaded
    )
    with pytest.raises(MTAdaptError, match=r"norm0\.weight is not in the file \(.*; 99\.\d\d % of the .* 100 % must\)"):
        load_backbone(path, mmdet_swin(), min_match=1)
    state["norm3.weight"] = torch.ones(64)
    loaded = load_backbone(save(tmp_path / "hvp.pth", state), mmdet_swin(), min_match=0.9)
    assert loaded.missing == ("norm3.bias",)


def _norms(name: str) -> bool:
    return "bn" in name or "downsample.1" in name


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (lambda name: not _norms(name), r"bn1\.weight is not in the file \(.*% of the entries match, 98\.00 % must"),
        (lambda name: "running" not in name, r"running_mean is not in the file .*% of the entries"),
        (lambda name: not name.startswith(("conv1", "bn1")), r"conv1\.weight is not in the file"),
    ],
)
def test_what_is_small_may_not_lack_either(tmp_path: Path, keep, message: str):
    """Of a ResNet-50, all norms are half a percent of the parameters, its first convolution less."""
    model = random_(ResNet(50))
    state = {name: value for name, value in model.state_dict().items() if keep(name)}
    path = tmp_path / "r50.pth"
    torch.save(state, path)
    with pytest.raises(MTAdaptError, match=message):
        load_backbone(path, ResNet(50))
    assert load_backbone(path, ResNet(50), min_match=0.3).share > 0.98


@pytest.mark.parametrize("first", ["plain", "deep"])
def test_another_stem(tmp_path: Path, first: str):
    models = dict(plain=ResNet(50), deep=ResNetV1c(depth=50))
    torch.save(models[first].state_dict(), tmp_path / "stem.pth")
    other = next(model for name, model in models.items() if name != first)
    with pytest.raises(MTAdaptError, match=r"(stem|conv1)\S* is not in the (file|model)"):
        load_backbone(tmp_path / "stem.pth", other)


@pytest.mark.parametrize("size", [(32, 64), (64, 256), (192, 384), (32, 96)])
def test_a_vit_for_wide_images_loads_its_own_weights(tmp_path: Path, size: tuple[int, int]):
    model, other = (VisionTransformer(VIT, img_size=size, patch_size=16, out_type="featmap") for _ in range(2))
    random_(model)
    path = tmp_path / "wide.pth"
    torch.save(model.state_dict(), path)
    assert load_backbone(path, other).reshaped == ()
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: (value * 10).to(torch.int8), "is int8 in the file"),
        (lambda value: value.to(torch.complex64), "is complex64 in the file"),
        (lambda value: value * float("nan"), "has values in the file that are not finite"),
    ],
)
def test_weights_that_are_no_numbers(tmp_path: Path, change, message: str):
    state = pretrained(window=7).state_dict()
    state["stages.0.blocks.0.norm1.weight"] = change(state["stages.0.blocks.0.norm1.weight"])
    backbone = mmdet_swin()
    with pytest.raises(MTAdaptError, match=message):
        load_backbone(save(tmp_path / "odd.pth", state), backbone)


def test_the_output_norms_of_an_official_detector(tmp_path: Path):
    """Swin's detection code has norm0 to norm3 beside ``layers``."""
    model = random_(mmdet_swin())
    names = {"stages.": "layers.", "patch_embed.projection": "patch_embed.proj", ".attn.w_msa.": ".attn."}
    names |= {".ffn.layers.0.0.": ".mlp.fc1.", ".ffn.layers.1.": ".mlp.fc2."}
    state = {}
    for name, value in model.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        state[name] = value
    path = tmp_path / "official.pth"
    torch.save(dict(model={f"backbone.{name}": value for name, value in state.items()}), path)
    other = mmdet_swin()
    report = load_backbone(path, other)
    assert not report.missing and not report.new and not report.unexpected
    for level in range(4):
        assert torch.equal(other.state_dict()[f"norm{level}.weight"], model.state_dict()[f"norm{level}.weight"])


def test_a_refused_backbone_is_as_it_was(tmp_path: Path):
    """Whatever the reason: shapes, further blocks, too few entries."""
    path = save(tmp_path / "hvp.pth", pretrained().state_dict())
    few = {name: value for name, value in pretrained().state_dict().items() if "blocks" not in name}
    for backbone, file in [
        (other_swin(depths=[1, 1, 1, 1]), path),
        (other_swin(depths=[1, 1, 3, 1]), path),
        (other_swin(num_heads=[2, 2, 4, 8]), path),
        (mmdet_swin(), save(tmp_path / "few.pth", few)),
    ]:
        before = {name: value.clone() for name, value in backbone.state_dict().items()}
        with pytest.raises(MTAdaptError, match="of another backbone than this"):
            load_backbone(file, backbone)
        assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


def test_less_may_be_asked_for(tmp_path: Path):
    state = {name: value for name, value in pretrained().state_dict().items() if not name.startswith("stages.3")}
    path = save(tmp_path / "hvp.pth", state)
    with pytest.raises(
        MTAdaptError, match=r"stages\.3\.\S+ is not in the file \(.*; \d\d\.\d\d % .* match, 98\.00 % must"
    ):
        load_backbone(path, mmdet_swin(6))
    backbone = mmdet_swin(6)
    report = load_backbone(path, backbone, min_match=0.1)
    assert 0.1 < report.share < 0.6 and all(name.startswith("stages.3") for name in report.missing)
    assert torch.equal(backbone.stages[0].blocks[0].norm1.weight, state["stages.0.blocks.0.norm1.weight"])


def test_adapters_are_new(tmp_path: Path):
    """They are put on a pre-trained backbone and belong to no checkpoint of it."""
    config = dict(type="mmpretrain.SwinTransformer", arch=ARCH, out_indices=ALL, window_size=6)
    adapters = [dict(type="LoRA", targets=["*.attn.w_msa.qkv"], rank=2)]
    with DefaultScope.overwrite_default_scope("mtadapt"):
        backbone = MODELS.build(dict(type="AdaptedBackbone", backbone=config, adapters=adapters))
    state = pretrained(out_indices=ALL).state_dict()
    report = load_backbone(save(tmp_path / "hvp.pth", state), backbone)
    assert report.share == 1 and not report.missing and all(name.startswith("adapters.") for name in report.new)
    assert f"; adapters stay new: {len(report.new)} (adapters." in str(report)
    assert torch.equal(backbone.norm3.weight, state["norm3.weight"])


def test_upcycled_experts(tmp_path: Path):
    """Dense layers become experts on the way, which is the backbone's own business."""
    dense = random_(MoESwin(ARCH, window_size=7))
    backbone = MoESwin(ARCH, window_size=7, mlp_experts=dict(num_experts=4, top_k=2))
    dense.eval()
    backbone.eval()
    report = load_backbone(save(tmp_path / "dense.pth", dense.state_dict()), backbone)
    assert report.share == 1 and not report.missing
    image = torch.randn(1, 3, 224, 224)
    for given, expected in zip(backbone(image), dense(image), strict=True):
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4)


def test_files_that_are_no_checkpoints(tmp_path: Path):
    path = save(tmp_path / "hvp.pth", pretrained().state_dict())
    with pytest.raises(MTAdaptError, match=r"is not there behind 'teacher\.', the file begins with backbone\."):
        load_backbone(path, mmdet_swin(), prefix="teacher.")
    with pytest.raises(MTAdaptError, match=f"^{tmp_path}/none.pth: no such file"):
        load_backbone(tmp_path / "none.pth", mmdet_swin())
    (tmp_path / "empty").mkdir()
    with pytest.raises(MTAdaptError, match=f"^{tmp_path}/empty: no checkpoint in this folder; give a file"):
        load_backbone(tmp_path / "empty", mmdet_swin())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(MTAdaptError, match="the checkpoint is truncated"):
        load_backbone(path, mmdet_swin())


def test_the_checkpoint_of_a_pre_training(tmp_path: Path):
    """The model of hvp_synthetic.py itself: its query encoder in a detector's Swin Transformer of another window."""
    config = Config.fromfile(ROOT / "configs/hvp_synthetic.py")
    with DefaultScope.overwrite_default_scope("mtadapt"):
        model = random_(MODELS.build(config.model))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / "iter_1.pth")
    backbone = mmdet.models.SwinTransformer(**config.model.backbone.arch, window_size=7)
    loaded = load_backbone(tmp_path, backbone)
    (window,) = {module.window_size[0] for module in model.backbone.modules() if isinstance(module, WindowMSA)}
    assert "mask_token" in loaded.unexpected and loaded.windows == (window, 7)
    given = model.state_dict()
    for name, value in backbone.named_parameters():
        if name not in loaded.new and name not in loaded.reshaped:
            assert torch.equal(value, given[f"backbone.{name}"]), name
