"""Stock backbones with adapters inside: unchanged at the start, fed by stock checkpoints, safe to copy and share."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmpretrain.models import LoRAModel
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS

SWIN = dict(embed_dims=16, depths=(2, 2), num_heads=(2, 4), window_size=4, drop_path_rate=0.0, out_indices=(0, 1))
VIT = dict(embed_dims=16, num_heads=2, num_layers=2)
ARCH = dict(embed_dims=16, depths=[2, 2], num_heads=[2, 4])
LAYERS = dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
STOCK = {
    "mmdet.Swin": dict(type="mmdet.SwinTransformer", **SWIN, strides=(4, 2)),
    "mmseg.Swin": dict(type="mmseg.SwinTransformer", **SWIN, strides=(4, 2)),
    "mmpretrain.Swin": dict(
        type="mmpretrain.SwinTransformer", arch=ARCH, img_size=32, window_size=4, out_indices=(0, 1), drop_path_rate=0.0
    ),
    "mmpretrain.ViT": dict(
        type="mmpretrain.VisionTransformer",
        arch=LAYERS,
        img_size=32,
        patch_size=8,
        out_type="featmap",
        out_indices=[0, 1],
    ),
    "mmseg.ViT": dict(type="mmseg.VisionTransformer", img_size=32, patch_size=8, **VIT, out_indices=(0, 1)),
}
QKV = {"mmpretrain.ViT": "*.attn.qkv", "mmseg.ViT": "*.ffn.layers.*.0"}


def adapters_of(name: str) -> list[dict]:
    lora = dict(type="LoRA", targets=[QKV.get(name, "*.attn.w_msa.qkv")], rank=3, alpha=6)
    return [lora, dict(type="TokenBottleneck", targets="*.ffn", ratio=4)]


def build(name: str, adapters: list[dict] | None = None, **settings: object) -> nn.Module:
    stock = ConfigDict(STOCK[name], **settings)
    adapters = adapters or adapters_of(name)
    model = MODELS.build(ConfigDict(type="mtadapt.AdaptedBackbone", backbone=stock, adapters=adapters))
    model.init_weights()
    return model


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def own(weights: dict) -> dict:
    return {name: value for name, value in weights.items() if not name.startswith("adapters.")}


def randomise(model: nn.Module) -> None:
    generator = torch.Generator().manual_seed(2)
    for parameter in model.adapters.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)


def gradients(model: nn.Module, data: torch.Tensor, wrapped: nn.Module | None = None) -> dict[str, torch.Tensor]:
    outputs = (wrapped or model)(data)
    sum(level.square().mean() for level in outputs).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("name", STOCK)
def test_unchanged_at_the_start_and_names_kept(name: str):
    """After ``init_weights``, which in mmdet's Swin goes over every linear layer."""
    model = build(name)
    stock = MODELS.build(STOCK[name])
    assert type(model) is type(stock)
    weights = model.state_dict()
    assert list(own(weights)) == list(stock.state_dict())
    blocks = 2 if "ViT" in name else 4
    assert len(model.adapters) == 2 * blocks
    stock.load_state_dict(own(weights))
    model.train()
    stock.train()
    outputs = model(images())
    for ours, expected in zip(outputs, stock(images()), strict=True):
        assert torch.equal(ours, expected)
    sum(level.square().sum() for level in outputs).backward()
    for key, parameter in model.adapters.named_parameters():
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == (".up" in key), key
    randomise(model)
    assert not any(torch.equal(*pair) for pair in zip(outputs, model(images()), strict=True))


@pytest.mark.parametrize("name", STOCK)
def test_stock_checkpoint_is_loaded(name: str, tmp_path: Path):
    """A public checkpoint, of a whole model where the backbone takes its own part, fits without a change."""
    generator = torch.Generator().manual_seed(7)
    weights = {
        key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else value
        for key, value in MODELS.build(STOCK[name]).state_dict().items()
    }
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "stock.pth"))
    if name.startswith("mmpretrain"):
        init_cfg["prefix"] = "backbone."
    prefix = "" if name == "mmseg.ViT" else "backbone."
    torch.save(dict(state_dict={prefix + key: value for key, value in weights.items()}), init_cfg["checkpoint"])
    model = build(name, init_cfg=init_cfg)
    for key, value in own(model.state_dict()).items():
        assert torch.equal(value, weights[key]), key
    assert not any(adapter.up.any() for adapter in model.adapters.values())


@pytest.mark.parametrize("name", ["mmdet.Swin", "mmpretrain.Swin"])
def test_checkpointed_activations(name: str):
    """Blocks that are run again in the backward pass (``with_cp``) give the same gradients."""
    plain, again = build(name), build(name, with_cp=True)
    randomise(plain)
    again.load_state_dict(plain.state_dict())
    for network in (plain, again):
        network.train()
    expected = gradients(plain, images())
    for key, gradient in gradients(again, images()).items():
        torch.testing.assert_close(gradient, expected[key], rtol=0, atol=0)


def test_equals_the_lora_of_mmpretrain():
    name = "mmpretrain.ViT"
    model = build(name, [dict(type="LoRA", targets="*.attn.qkv", rank=3, alpha=6)])
    randomise(model)
    other = LoRAModel(STOCK[name], alpha=6, rank=3, targets=[dict(type=".*qkv")])
    weights = dict(model.named_parameters())
    for key, parameter in other.module.named_parameters():
        if ".lora_" in key:
            layer, _, part = key.removesuffix(".weight").rpartition(".lora_")
            parameter.data = weights[f"adapters.{layer.replace('.', '_')}_LoRA.{part}"].data
        else:
            parameter.data = weights[key.replace("original_layer.", "")].data
    model.eval()
    for ours, expected in zip(model(images()), other.eval()(images()), strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_a_copy_has_adapters_of_its_own():
    model = build("mmpretrain.ViT")
    model.eval()
    randomise(model)
    before = model(images())
    twin = copy.deepcopy(model)
    for ours, expected in zip(twin(images()), before, strict=True):
        assert torch.equal(ours, expected)
    for parameter in twin.adapters.parameters():
        nn.init.zeros_(parameter)
    changed = twin(images())
    for ours, expected, other in zip(model(images()), before, changed, strict=True):
        assert torch.equal(ours, expected)
        assert not torch.equal(other, expected)


def test_weights_come_back_from_a_checkpoint(tmp_path: Path):
    model = build("mmdet.Swin")
    randomise(model)
    torch.save(model.state_dict(), tmp_path / "adapted.pth")
    again = build("mmdet.Swin")
    again.load_state_dict(torch.load(tmp_path / "adapted.pth"))
    for network in (model, again):
        network.eval()
    for ours, expected in zip(again(images()), model(images()), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("name", ["mmdet.Swin", "mmseg.Swin", "mmpretrain.Swin", "mmpretrain.ViT"])
def test_frozen_stages_leave_the_adapters_trainable(name: str):
    """The setting of the stock backbone for frozen weights makes a run that trains nothing but adapters."""
    # mmpretrain's Swin counts the stages from 0.
    model = build(name, frozen_stages=1 if name == "mmpretrain.Swin" else 2)
    model.train()
    trainable = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    # mmdet's and mmseg's Swin leave the norm of the last frozen level trainable.
    own_keys = {f"adapters.{key}" for key, _ in model.adapters.named_parameters()}
    assert own_keys <= trainable
    assert all(key.startswith("norm1.") for key in trainable - own_keys), trainable - own_keys
    assert all(adapter.training for adapter in model.adapters.values())


def test_inside_stock_models_of_the_libraries():
    adapted = dict(type="mtadapt.AdaptedBackbone", adapters=adapters_of("mmdet.Swin"))
    head = dict(in_channels=32, channels=8, in_index=1, num_classes=3, norm_cfg=dict(type="BN"))
    with DefaultScope.overwrite_default_scope("mmseg"):
        backbone = dict(STOCK["mmseg.Swin"], type="SwinTransformer")
        segmentor = MODELS.build(
            ConfigDict(
                type="EncoderDecoder",
                backbone=dict(adapted, backbone=backbone),
                decode_head=dict(type="FCNHead", **head),
                pretrained="open-mmlab://none",
                test_cfg=dict(mode="whole"),
            )
        )
    assert segmentor.backbone.init_cfg == dict(type="Pretrained", checkpoint="open-mmlab://none")
    assert "backbone.stages.0.blocks.0.attn.w_msa.qkv.weight" in segmentor.state_dict()
    classifier = MODELS.build(
        ConfigDict(
            _scope_="mmpretrain",
            type="ImageClassifier",
            backbone=dict(adapted, backbone=dict(STOCK["mmpretrain.Swin"], type="SwinTransformer", out_indices=(1,))),
            neck=dict(type="GlobalAveragePooling"),
            head=dict(type="LinearClsHead", num_classes=3, in_channels=32),
        )
    )
    assert classifier(images()) is not None
    assert len(classifier.backbone.adapters) == 8


def frozen_twin() -> nn.Module:
    torch.manual_seed(0)
    model = build("mmpretrain.ViT")
    model.requires_grad_(False)
    model.adapters.requires_grad_(True)
    randomise(model)
    model.eval()
    return model


def step(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    model = frozen_twin().double()
    torch.save(gradients(model, images(rank).double(), DistributedDataParallel(model)), f"{folder}/{rank}.pth")
    dist.destroy_process_group()


def test_two_processes(tmp_path: Path):
    """The gradients of the adapters are the means over the processes; nothing else has one.

    In double precision, because the sums of single precision differ with the number of threads.
    """
    mp.start_processes(step, (str(tmp_path),), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pth") for rank in range(2))
    alone = [gradients(frozen_twin().double(), images(rank).double()) for rank in range(2)]
    assert first and all(name.startswith("adapters.") for name in first)
    for name, gradient in first.items():
        assert torch.equal(gradient, second[name])
        torch.testing.assert_close(gradient, (alone[0][name] + alone[1][name]) / 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(type="LoRA", targets="*.q"),
            r"targets '\*\.q', no module of the backbone; what fits is .* layers\.0\.att",
        ),
        (
            dict(type="LoRA", targets="*.attn"),
            r"LoRA targets '\*\.attn', but layers\.0\.attn \(MultiheadAttention\) is not a linear layer that is called"
            r"; what fits is for example layers\.0\.attn\.qkv, layers\.0\.attn\.proj, ",
        ),
        (
            dict(type="TokenBottleneck", targets="*.norm9"),
            r"TokenBottleneck targets '\*\.norm9', no module of the backbone",
        ),
        (dict(type="TokenBottleneck", targets="*.ffn.layers"), r"is not a module with embed_dims \(or channels=C"),
        (dict(type="LoRA"), r"LoRA has no targets; what fits is for example"),
        (
            dict(type="LoRA", targets="*.qkv", ranks=3),
            r"LoRA has no setting \['ranks'\]; it has \['rank', 'alpha'\] and targ",
        ),
        (dict(type="LoRA", targets=["*.qkv", "layers.1.*.qkv"]), r"LoRA targets layers\.1\.attn\.qkv twice; leave one"),
        (dict(type="Prefix", targets="*"), r"type='Prefix' is no adapter for modules; use 'LoRA' or 'TokenBottleneck'"),
        (dict(type="BottleneckAdapter", targets="*"), r"type='BottleneckAdapter' is no adapter for modules"),
    ],
)
def test_mistakes(settings: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        build("mmpretrain.ViT", [settings])


def test_no_adapters():
    with pytest.raises(MTAdaptError, match=r"adapters is empty; give at least one"):
        MODELS.build(dict(type="mtadapt.AdaptedBackbone", backbone=STOCK["mmdet.Swin"], adapters=[]))
    nested = dict(type="mtadapt.AdaptedBackbone", backbone=STOCK["mmdet.Swin"], adapters=adapters_of("mmdet.Swin"))
    with pytest.raises(MTAdaptError, match=r"SwinTransformer has adapters of its own; use another backbone"):
        MODELS.build(dict(nested, backbone=nested))


def test_layers_that_are_not_called():
    """mmcv's attention (in mmseg's ViT) and BEiT read the weights of a layer without calling it."""
    with pytest.raises(MTAdaptError, match=r"layers\.0\.attn\.attn\.out_proj .* is not a linear layer that is called"):
        build("mmseg.ViT", [dict(type="LoRA", targets="*.out_proj")])
    beit = dict(type="mmpretrain.BEiTViT", arch=LAYERS, img_size=32, patch_size=8, out_type="featmap")
    adapters = [dict(type="LoRA", targets=["*.attn.qkv", "*.attn.proj"])]
    model = MODELS.build(dict(type="mtadapt.AdaptedBackbone", backbone=beit, adapters=adapters))
    message = r"targets of 2 adapters are not called by BEiTViT, .*, first layers_0_attn_qkv_LoRA; take them out"
    with pytest.raises(MTAdaptError, match=message):
        model(images())
