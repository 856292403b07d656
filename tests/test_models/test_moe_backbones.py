"""What holds for all backbones with experts; the yardstick are mmpretrain's own models."""

from __future__ import annotations

import copy

import pytest
import torch
from mmpretrain.models import DaViT, SwinTransformer, VisionTransformer
from torch import nn

from mtadapt.errors import MTAdaptError
from mtadapt.models import MoEDaViT, MoESwin, MoEViT
from mtadapt.models.moe import MoEAttention, MoEMLP
from mtadapt.registry import MODELS
from tests.test_models.test_moe import reference

STAGES = dict(embed_dims=8, depths=[1, 1, 2, 1], num_heads=[1, 2, 4, 8])
LAYERS = dict(embed_dims=16, num_layers=4, num_heads=2, feedforward_channels=32)
TASKS = ("cls", "det")
EXPERTS = dict(num_experts=6, top_k=2)
#: Ours, the stock class, settings of both, settings that the stock class needs to be the dense twin.
FAMILIES = {
    "davit": (MoEDaViT, DaViT, dict(arch=STAGES), dict(out_indices=(0, 1, 2, 3), pad_small_map=True)),
    "swin": (MoESwin, SwinTransformer, dict(arch=STAGES), dict(out_indices=(0, 1, 2, 3), pad_small_map=True)),
    "vit": (
        MoEViT,
        VisionTransformer,
        dict(arch=LAYERS, img_size=64, out_indices=[1, 3]),
        dict(with_cls_token=False, out_type="featmap"),
    ),
}
FAMILY = pytest.mark.parametrize("family", FAMILIES)


def build(family: str, **settings):
    kind, _, both, _ = FAMILIES[family]
    return kind(**copy.deepcopy(both), **settings)


def stock(family: str, **settings):
    _, kind, both, needed = FAMILIES[family]
    return kind(**copy.deepcopy(both), **{**needed, **settings})


def with_experts(family: str, **settings):
    """A backbone with routers as after some training: at the start all of them say the same."""
    torch.manual_seed(0)
    experts = dict(tasks=TASKS, mlp_experts=EXPERTS, **settings)
    if family == "vit":
        experts = dict(attention_experts=dict(num_experts=3, top_k=2, every=2, offset=0), **experts)
    backbone = build(family, **experts)
    for layer in backbone.moe_layers().values():
        for router in layer.routers.values():
            nn.init.normal_(router[2].weight)
            nn.init.normal_(router[2].bias)
    return backbone


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def mlps(backbone) -> dict[str, nn.Module]:
    """Every MLP, in the order in which they run."""
    return {name: module for name, module in backbone.named_modules() if name.endswith(".ffn")}


@FAMILY
def test_dense_twin_is_the_stock_backbone(family: str):
    """Same names, same random weights for a seed, same numbers in training with stochastic depth, same gradients."""
    torch.manual_seed(0)
    expected = stock(family, drop_path_rate=0.5)
    torch.manual_seed(0)
    twin = build(family, drop_path_rate=0.5)
    assert not twin.conditioned
    assert list(twin.state_dict()) == list(expected.state_dict())
    for ours, theirs in zip(twin.state_dict().values(), expected.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)
    results = []
    for backbone in (twin, expected):
        backbone.train()
        torch.manual_seed(2)
        outs = backbone(images(2, 3, 64, 64))
        sum(out.square().sum() for out in outs).backward()
        results.append([*outs, *(p.grad for p in backbone.parameters() if p.grad is not None)])
    assert len(results[0]) == len(results[1]) > 20
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs)


@FAMILY
@pytest.mark.parametrize("settings", [dict(with_cp=True), dict(frozen_stages=1)], ids=["cp", "frozen"])
def test_dense_twin_loads_the_weights_of_the_stock_backbone(family: str, settings: dict):
    expected, twin = stock(family), build(family, **settings)
    twin.load_state_dict(expected.state_dict())
    twin.eval()
    expected.eval()
    for ours, theirs in zip(twin(images(1, 3, 64, 128)), expected(images(1, 3, 64, 128)), strict=True):
        assert torch.equal(ours, theirs)


class _Reference(nn.Module):
    """In the place of a stock layer: the float64 reference of one with experts."""

    def __init__(self, layer: nn.Module, tasks: list[str]) -> None:
        super().__init__()
        self.layer, self.routes = layer, [{task: 1.0} for task in tasks]

    def forward(self, x: torch.Tensor, identity: torch.Tensor | float = 0.0) -> torch.Tensor:
        function = reference.mlp if isinstance(self.layer, MoEMLP) else reference.attention
        return function(self.layer, x, self.routes) + identity


@FAMILY
def test_equals_the_stock_backbone_with_experts_computed_one_by_one(family: str):
    """In float64, with one row for every task: outputs, and the gradients of all weights."""
    backbone = with_experts(family).eval()
    expected = stock(family).double()
    expected.eval()
    expected.load_state_dict(backbone.state_dict(), strict=False)
    for name, layer in backbone.moe_layers().items():
        parent, _, attribute = name.rpartition(".")
        setattr(expected.get_submodule(parent), attribute, _Reference(copy.deepcopy(layer), [*TASKS]))

    outs = backbone(images(2, 3, 32, 32), [*TASKS])
    wanted = expected(images(2, 3, 32, 32).double())
    for ours, theirs in zip(outs, wanted, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)
    sum((out * images(*out.shape)).sum() for out in outs).backward()
    sum((out * images(*out.shape)).sum() for out in wanted).backward()
    gradients = {name.replace(".layer.", "."): each.grad for name, each in expected.named_parameters()}
    for name, parameter in backbone.named_parameters():
        ours, theirs = parameter.grad, gradients[name]
        if theirs is None:
            assert ours is None, name
        else:
            scale = theirs.abs().max().item() + 1e-3
            torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-3, atol=1e-3 * scale, msg=name)


@FAMILY
def test_several_tasks_in_a_batch_equal_one_by_one(family: str):
    backbone = with_experts(family).eval()
    x = images(3, 3, 32, 48)
    routes = ["det", "cls", dict(cls=0.25, det=0.75)]
    together = backbone(x, routes)
    for row, route in enumerate(routes):
        for whole, alone in zip(together, backbone(x[row : row + 1], route), strict=True):
            torch.testing.assert_close(whole[row : row + 1], alone, rtol=1e-4, atol=1e-5)
    other = backbone(x, "cls")
    assert all((whole[0] - out[0]).abs().max() > 1e-3 for whole, out in zip(together, other, strict=True))


@FAMILY
def test_gradients_reach_experts_and_routers_of_the_tasks_in_the_batch(family: str):
    backbone = with_experts(family).train()
    sum(out.square().sum() for out in backbone(images(2, 3, 32, 32), "det")).backward()
    absent = {id(each) for each in backbone.task_parameters("cls")}
    assert len(absent) == 4 * len(backbone.moe_layers())
    for name, parameter in backbone.named_parameters():
        if id(parameter) in absent:
            assert parameter.grad is None, name
        # A key's bias adds the same to all scores of a query: its gradient is zero in theory.
        elif "pos_embed" not in name and not name.endswith("qkv.bias"):
            assert parameter.grad.abs().sum() > 0, name


@FAMILY
def test_checkpointing_changes_no_gradient_and_no_statistic(family: str):
    """With stochastic depth, and with the mutual-information loss, which holds on to what the layers routed."""
    found = []
    for with_cp in (False, True):
        backbone = with_experts(family, with_cp=with_cp, drop_path_rate=0.5, mutual_information=dict(weight=1.0))
        backbone.train()
        for step in range(2):
            backbone.zero_grad()
            torch.manual_seed(step)
            with backbone.collecting():
                outs = backbone(images(2, 3, 32, 32), ["det", "cls"])
            statistics = backbone.routing_statistics()
            (sum(out.square().sum() for out in outs) + statistics["loss_mutual_information"]).backward()
        grads = {name: each.grad for name, each in backbone.named_parameters()}
        found.append((grads, dict(backbone.named_buffers()), statistics))
    for without, with_checkpoints in zip(*found, strict=True):
        for name, value in without.items():
            assert value is None or torch.equal(value, with_checkpoints[name]), name


@FAMILY
def test_checkpointing_keeps_the_input_of_every_block(family: str):
    kept = []
    for with_cp in (False, True):
        backbone = with_experts(family, with_cp=with_cp).train()
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, saved=saved: saved.append(t.numel()) or t, lambda t: t):
            outs = backbone(images(2, 3, 64, 64), "det")
        kept.append(sum(saved))
    assert kept[1] < 0.5 * kept[0]
    runs: list[str] = []
    for name, module in mlps(backbone).items():
        module.register_forward_pre_hook(lambda *_, name=name: runs.append(name))
    sum(out.sum() for out in outs).backward()
    assert sorted(runs) == sorted(mlps(backbone))


@FAMILY
def test_stochastic_depth_drops_the_experts_of_whole_images(family: str):
    rates = [module.dropout_layer.drop_prob for module in mlps(stock(family, drop_path_rate=0.6)).values()]
    backbone = with_experts(family, drop_path_rate=0.6)
    assert [module.dropout_layer.drop_prob for module in mlps(backbone).values()] == rates
    assert max(rates) == pytest.approx(0.6)
    name, layer = [*mlps(backbone).items()][-1]
    layer.dropout_layer.drop_prob = 0.5
    outputs = []
    layer.register_forward_hook(lambda module, args, output: outputs.append((args[2], output)))
    backbone.train()
    torch.manual_seed(0)
    backbone(images(16, 3, 32, 32), "det")
    identity, output = outputs[0]
    dropped = [torch.equal(row, out) for row, out in zip(identity, output, strict=True)]
    assert any(dropped) and not all(dropped), name


@FAMILY
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 50), (70, 31)])
def test_images_of_any_size(family: str, height: int, width: int):
    backbone = with_experts(family).eval()
    outs = backbone(images(2, 3, height, width), ["det", "cls"])
    strides = (16, 16) if family == "vit" else (4, 8, 16, 32)
    assert len(outs) == len(strides)
    for out, stride in zip(outs, strides, strict=True):
        assert out.shape[2:] == (-(-height // stride), -(-width // stride))
        assert out.isfinite().all()


@FAMILY
def test_frozen_stages_stay_as_they_are(family: str):
    frozen = dict(davit="stages.1.", swin="stages.1.", vit="layers.0.")[family]
    trained = dict(davit="stages.2.", swin="stages.2.", vit="layers.1.")[family]
    backbone = with_experts(family, frozen_stages=1, drop_path_rate=0.5)
    assert not any(each.requires_grad for name, each in backbone.named_parameters() if name.startswith(frozen))
    backbone.train()
    x = images(2, 3, 32, 32)
    with backbone.collecting():
        sum(out.square().sum() for out in backbone(x, "det")).backward()
    backbone.routing_statistics()
    for name, module in backbone.named_modules():
        if name.startswith(frozen):
            assert not module.training, name
        if name.startswith(trained):
            assert module.training, name
    for name, layer in backbone.moe_layers().items():
        assert layer.usage.updates.tolist() == ([0, 0] if name < trained else [0, 1]), name
    for name, parameter in backbone.named_parameters():
        if name.startswith(("patch_embed", frozen)):
            assert parameter.grad is None and not parameter.requires_grad, name
        elif name.startswith(trained) and "routers.cls" not in name:
            assert parameter.requires_grad and parameter.grad is not None, name


@FAMILY
def test_every_and_offset_count_the_mlps_as_they_run(family: str):
    order: list[str] = []
    dense = build(family)
    for name, module in mlps(dense).items():
        module.register_forward_hook(lambda *_, name=name: order.append(name))
    dense(images(1, 3, 32, 32))
    chosen = order[1::3]
    backbone = build(family, mlp_experts=dict(num_experts=[[2, 3]] + [4] * (len(chosen) - 1), every=3, offset=1))
    layers = backbone.moe_layers()
    assert [*layers] == chosen
    for number, (name, layer) in enumerate(layers.items()):
        hidden = dense.get_submodule(name).feedforward_channels
        assert [bank.w1.shape[0] for bank in layer.banks] == ([2, 3] if number == 0 else [4])
        assert all(bank.w1.shape[2] == hidden // 4 for bank in layer.banks)


def test_order_of_the_mlps_of_davit():
    backbone = MoEDaViT(arch=STAGES, mlp_experts=dict(num_experts=4, every=2))
    assert [*backbone.moe_layers()] == [
        f"stages.{stage}.blocks.{block}.channel_block.ffn" for stage, block in ((0, 0), (1, 0), (2, 0), (2, 1), (3, 0))
    ]


@FAMILY
def test_initialisation_keeps_routers_at_zero(family: str):
    """Settings that reach every linear layer (TruncNormal in Swin's configs, Xavier in ViT's own code)."""
    init_cfg = [dict(type="TruncNormal", layer="Linear", std=0.02)]
    backbone = build(family, tasks=TASKS, mlp_experts=EXPERTS, init_cfg=init_cfg)
    backbone.init_weights()
    for layer in backbone.moe_layers().values():
        for router in layer.routers.values():
            assert not router[2].weight.any() and not router[2].bias.any()
            assert router[0].weight.any()
    outs = backbone.eval()(images(2, 3, 32, 32), "det")
    for one, other in zip(outs, backbone(images(2, 3, 32, 32), "cls"), strict=True):
        assert torch.equal(one, other)


@FAMILY
def test_dense_twin_has_no_routes(family: str):
    """It takes them, so that one model runs both."""
    twin = build(family, tasks=TASKS).eval()
    x = images(2, 3, 32, 32)
    assert twin.moe_layers() == {} and twin.task_parameters("det") == []
    for ours, theirs in zip(twin(x, ["det", "cls"]), twin(x), strict=True):
        assert torch.equal(ours, theirs)


@FAMILY
def test_mode_setters_return_the_backbone(family: str):
    backbone = build(family)
    assert backbone.train() is backbone and backbone.eval() is backbone


@pytest.mark.parametrize("family", ["MoEDaViT", "MoESwin", "MoEViT"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(mlp_experts=dict(num_experts=8, top_k=5)), "top_k=5, which does not divide the .* hidden units"),
        (dict(mlp_experts=dict(num_experts=3, top_k=4)), "top_k=4 of num_experts=3"),
        (dict(tasks=[]), "tasks=\\[\\]"),
        (dict(mlp_experts=dict(num_experts=8), task_banks=dict(seg=1)), "task_banks of unknown task 'seg'"),
    ],
)
def test_impossible_settings(family: str, settings: dict, message: str):
    arch = LAYERS if family == "MoEViT" else STAGES
    with pytest.raises(MTAdaptError, match=message):
        MODELS.build(dict(type=f"mtadapt.{family}", arch=arch, **settings))


def test_dropout_and_other_activations_have_no_experts():
    for settings in (
        dict(drop_rate=0.1),
        dict(layer_cfgs=dict(act_cfg=dict(type="ReLU"))),
        dict(layer_cfgs=dict(ffn_type="swiglu_fused")),
    ):
        with pytest.raises(MTAdaptError, match="an MLP with two layers, GELU and no dropout"):
            build("vit", mlp_experts=EXPERTS, **settings)
    with pytest.raises(MTAdaptError, match="attention without dropout"):
        build("vit", attention_experts=EXPERTS, layer_cfgs=dict(attn_drop_rate=0.1))


def test_experts_in_attention_and_mlp_alternate_as_in_mod_squad():
    backbone = build(
        "vit",
        attention_experts=dict(num_experts=5, top_k=2, every=2, offset=0),
        mlp_experts=dict(num_experts=4, every=2, offset=1),
    )
    assert {name: type(layer) for name, layer in backbone.moe_layers().items()} == {
        "layers.0.attn": MoEAttention,
        "layers.1.ffn": MoEMLP,
        "layers.2.attn": MoEAttention,
        "layers.3.ffn": MoEMLP,
    }
    assert backbone.layers[0].attn.banks[0].wq.shape == (5, 16, 8)
