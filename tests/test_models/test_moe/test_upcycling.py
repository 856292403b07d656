"""Experts from dense checkpoints: the same outputs at the start, and clear words where that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmpretrain.models import VisionTransformer
from mmpretrain.models.utils import MultiheadAttention
from torch import nn

from mtadapt.errors import MTAdaptError
from mtadapt.models import MoEViT
from mtadapt.models.moe import LayerExperts, MoEAttention, MoEMLP, Routes
from tests.test_models.test_moe_backbones import FAMILIES, FAMILY, LAYERS, TASKS, build, images, stock

ARCH = dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=24)


@FAMILY
@pytest.mark.parametrize(("num_experts", "top_k"), [(8, 4), (7, 4), (16, 2), (4, 4), (2, 1), ([6], 4)])
def test_equals_the_dense_backbone(family: str, num_experts, top_k: int):
    """For each task, with numbers of experts that top_k does not divide too; the load is strict."""
    dense = stock(family)
    if isinstance(num_experts, list):
        num_experts = [[2, 4]] * sum(1 for name, _ in dense.named_modules() if name.endswith(".ffn"))
    backbone = build(family, tasks=TASKS, mlp_experts=dict(num_experts=num_experts, top_k=top_k))
    backbone.load_state_dict(dense.state_dict())
    dense.eval()
    backbone.eval()
    x = images(2, 3, 64, 64)
    for task in TASKS:
        for ours, theirs in zip(backbone(x, task), dense(x), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@FAMILY
def test_equals_the_dense_backbone_in_mixed_precision(family: str):
    torch.manual_seed(0)
    dense = stock(family)
    backbone = build(family, tasks=TASKS, mlp_experts=dict(num_experts=8))
    backbone.load_state_dict(dense.state_dict())
    dense.eval()
    backbone.eval()
    exact = dense(images(1, 3, 64, 64))
    with torch.autocast("cpu", torch.bfloat16):
        for ours, theirs, right in zip(
            backbone(images(1, 3, 64, 64), "det"), dense(images(1, 3, 64, 64)), exact, strict=True
        ):
            assert ours.dtype == theirs.dtype
            # As far from float32 as the dense backbone is in this precision.
            assert (ours - right).norm() < 1.5 * (theirs - right).norm() < 0.1 * right.norm()


@FAMILY
def test_pretrained_setting_takes_a_public_checkpoint(family: str, tmp_path: Path):
    """With the layout of mmpretrain's files; layers that stay dense are loaded as they are."""
    dense = stock(family)
    dense.init_weights()
    weights = {f"backbone.{key}": value for key, value in dense.state_dict().items()}
    torch.save(dict(state_dict={**weights, "head.fc.weight": torch.zeros(2, 2)}), tmp_path / "dense.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "dense.pth"), prefix="backbone.")
    backbone = build(family, tasks=TASKS, mlp_experts=dict(num_experts=8, every=2), init_cfg=init_cfg)
    backbone.init_weights()
    backbone.eval()
    dense.eval()
    for ours, theirs in zip(backbone(images(1, 3, 32, 32), "det"), dense(images(1, 3, 32, 32)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@FAMILY
def test_a_trained_model_loads_as_it_is(family: str):
    settings = dict(tasks=TASKS, mlp_experts=dict(num_experts=6, top_k=2))
    trained, other = build(family, **settings), build(family, **settings)
    for value in trained.state_dict().values():
        if value.is_floating_point():
            nn.init.normal_(value)
    other.load_state_dict(trained.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name]), name


def test_routers_and_statistics_begin_anew():
    backbone = build("vit", tasks=TASKS, mlp_experts=dict(num_experts=4))
    for value in backbone.state_dict().values():
        value.copy_(torch.full_like(value, 3))
    backbone.load_state_dict(stock("vit").state_dict())
    layer = backbone.layers[0].ffn
    assert not any(buffer.any() for buffer in layer.usage.buffers())
    for router in layer.routers.values():
        assert not router[2].weight.any() and not router[2].bias.any()
        assert (router[0].weight == 3).all()


def test_layer_scale_is_multiplied_in():
    settings = dict(arch=LAYERS, img_size=64, layer_scale_init_value=0.1, with_cls_token=False, out_type="featmap")
    dense = VisionTransformer(**settings)
    for name, parameter in dense.named_parameters():
        if "gamma" in name:
            nn.init.normal_(parameter)
    backbone = MoEViT(mlp_experts=dict(num_experts=8), **settings)
    backbone.load_state_dict(dense.state_dict())
    dense.eval()
    backbone.eval()
    torch.testing.assert_close(backbone(images(1, 3, 64, 64))[0], dense(images(1, 3, 64, 64))[0], rtol=1e-5, atol=1e-5)


def test_half_precision_checkpoint():
    """E times a weight of 3000 is more than float16 holds."""
    dense = stock("vit")
    with torch.no_grad():
        dense.layers[0].ffn.layers[1].weight[:] = 3000.0
    backbone = build("vit", mlp_experts=dict(num_experts=32))
    backbone.load_state_dict({key: value.half() for key, value in dense.state_dict().items()})
    assert torch.equal(backbone.layers[0].ffn.banks[0].w2, torch.full((32, 8, 16), 96000.0))


def attention_layer(num_experts: int, top_k: int) -> MoEAttention:
    return MoEAttention(16, 4, LayerExperts((num_experts,), top_k), ["cls"])


@pytest.mark.parametrize(("num_experts", "top_k"), [(4, 4), (8, 4), (6, 4), (9, 8)])
def test_attention_is_exact_where_all_heads_share_key_and_value(num_experts: int, top_k: int):
    """Then the mean over the heads is what each of them has."""
    dense = MultiheadAttention(16, 4)
    with torch.no_grad():
        for parameter in (dense.qkv.weight, dense.qkv.bias):
            nn.init.normal_(parameter)
            heads = parameter.view(3, 4, 4, -1)
            heads[1:] = heads[1:, :1].clone()
    layer = attention_layer(num_experts, top_k)
    layer.load_state_dict(dense.state_dict())
    x = torch.randn(2, 5, 16)
    routes = Routes.build("cls", ("cls",), 2, x.device)
    torch.testing.assert_close(layer(x, routes), dense(x), rtol=1e-4, atol=1e-5)


def test_attention_takes_queries_outputs_and_mean_keys():
    """In general: query and output of head j % 4, the scale of the gates, key and value averaged, layer scale."""
    dense = MultiheadAttention(16, 4, qkv_bias=False, layer_scale_init_value=0.5)
    layer = attention_layer(6, 2)
    layer.load_state_dict(dense.state_dict())
    q, k, v = (part.view(4, 4, 16) for part in dense.qkv.weight.chunk(3))
    for expert in range(6):
        head = expert % 4
        assert torch.equal(layer.banks[0].wq[expert], q[head].T)
        out = dense.proj.weight[:, 4 * head : 4 * head + 4].T
        torch.testing.assert_close(layer.banks[0].wo[expert], out * 0.5 * 6 * 4 / 2)
        torch.testing.assert_close(layer.banks[0].bo[expert], dense.proj.bias * 0.5 * 6 / 2)
    torch.testing.assert_close(layer.kv.weight, torch.cat([(k[0] + k[1] + k[2] + k[3]) / 4, v.mean(0)]))
    assert not layer.kv.bias.any() and not layer.banks[0].bq.any()


def test_attention_of_a_whole_backbone():
    dense = VisionTransformer(arch=ARCH, img_size=32)
    experts = dict(num_experts=4, top_k=2)
    backbone = MoEViT(arch=ARCH, img_size=32, attention_experts=experts, mlp_experts=experts)
    backbone.load_state_dict(dense.state_dict())
    assert torch.equal(backbone.layers[1].ln2.weight, dense.layers[1].ln2.weight)
    assert torch.equal(backbone.layers[1].attn.banks[0].wq[3], dense.layers[1].attn.qkv.weight[4:8].T)


def mlp_layer(**settings) -> MoEMLP:
    return MoEMLP(16, 8, LayerExperts((6,), 4), ["cls"], **settings)


def test_dense_layers_that_do_not_fit():
    weights = {
        key[len("layers.0.ffn.") :]: value for key, value in stock("vit").state_dict().items() if ".0.ffn." in key
    }
    mlp_layer().load_state_dict(dict(weights))
    with pytest.raises(
        MTAdaptError, match=r"dense FFN goes from 16 to 32 channels, the experts take 16 to .* = 2 \* 8"
    ):
        MoEMLP(16, 8, LayerExperts((6,), 2), ["cls"]).load_state_dict(dict(weights))
    with pytest.raises(MTAdaptError, match=r"which has 'layers.2.weight'"):
        mlp_layer().load_state_dict({**weights, "layers.2.weight": torch.zeros(16, 16)})
    del weights["layers.1.bias"]
    with pytest.raises(MTAdaptError, match=r"which lacks 'layers.1.bias'"):
        mlp_layer().load_state_dict(dict(weights))
    with pytest.raises(
        MTAdaptError, match=r"dense attention has 32 channels and qkv of 96, the experts are heads of 4"
    ):
        attention_layer(4, 4).load_state_dict(MultiheadAttention(32, 4).state_dict())


def test_the_layer_is_named_inside_a_model():
    kind, dense, settings, needed = FAMILIES["swin"]
    weights = dense(**{**settings, **needed, "arch": {**settings["arch"], "embed_dims": 16}}).state_dict()
    model = nn.ModuleDict(dict(backbone=kind(**settings, mlp_experts=dict(num_experts=4))))
    with pytest.raises(MTAdaptError, match=r"backbone\.stages\.0\.blocks\.0\.ffn: the checkpoint's dense FFN"):
        model.load_state_dict({f"backbone.{key}": value for key, value in weights.items() if "table" not in key})


def test_routers_that_see_different_numbers_of_experts():
    layer = MoEMLP(16, 8, LayerExperts((4, 2), 4), ["cls", "det"], dict(cls=1))
    weights = {
        key[len("layers.0.ffn.") :]: value for key, value in stock("vit").state_dict().items() if ".0.ffn." in key
    }
    with pytest.raises(MTAdaptError, match=r"different numbers of them \({'cls': 4, 'det': 6}\); leave task_banks out"):
        layer.load_state_dict(weights)
