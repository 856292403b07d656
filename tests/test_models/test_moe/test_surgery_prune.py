"""Pruned models: equal to the full one with the removed experts' logits at minus infinity; stock models; mistakes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.surgery import Experts, prune
from mtadapt.registry import MODELS
from tests.moe_models import random_state, run_config

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 4 - 2


def full(**backbone) -> tuple[Config, dict[str, Tensor]]:
    config = run_config(Path("data"), **backbone)
    return config, random_state(config)


def build(config: Config, state: dict[str, Tensor]) -> nn.Module:
    model = MODELS.build(copy.deepcopy(config.model))
    model.load_state_dict(state, strict=True)
    return model.eval()


def features(model: nn.Module, task: str) -> list[Tensor]:
    with torch.no_grad():
        return list(model.extract_features(IMAGES, task)["neck"])


def masked(config: Config, state: dict[str, Tensor], tasks: list[str], threshold: float) -> dict[str, Tensor]:
    """The full state dict, in which the logits of experts that no task uses enough are minus infinity."""
    state = {key: value.clone() for key, value in state.items()}
    routers = config.model.backbone.tasks
    for key in [key for key in state if key.endswith("usage.load")]:
        use = state[key][[routers.index(task) for task in tasks]].amax(0)
        for task in tasks:
            bias = state[key.replace("usage.load", f"routers.{task}.2.bias")]
            bias[(use < threshold)[: len(bias)]] = -torch.inf
    return state


@pytest.mark.parametrize("tasks", [["det"], ["cls", "sem_seg"]])
def test_pruning_is_masking(tasks: list[str]):
    config, state = full()
    threshold = 0.16
    new, small = prune(config, state, tasks, threshold, keep_top_k=False)
    sizes = new.model.backbone.mlp_experts.num_experts
    assert (min(sizes) >= 2 and max(sizes) < 5) or len(set(sizes)) > 1, "something has to be left out"
    model, reference = build(new, small), build(config, masked(config, state, tasks, threshold))
    assert [*model.tasks] == tasks and model.backbone.tasks == tuple(tasks)
    for task in tasks:
        for one, two in zip(features(model, task), features(reference, task), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    change = features(build(config, state), tasks[0])[-1] - features(model, tasks[0])[-1]
    assert change.abs().max() > 1e-3, "the other experts matter"


def test_the_softmax_is_over_the_experts_that_are_kept():
    config, state = full()
    new, small = prune(config, state, ["det"], 0.16)
    layer = Experts.of(config).layers[0]
    kept = state[f"{layer.name}.usage.load"][1] >= 0.16
    x = torch.randn(2, 7, 8, dtype=torch.float64)

    def probabilities(state: dict[str, Tensor]) -> Tensor:
        router = {key: value.double() for key, value in state.items() if key.startswith(f"{layer.name}.routers.det.")}
        first, bias, last, end = router.values()
        hidden = nn.functional.gelu(x @ first.T + bias)
        return (hidden @ last.T + end).softmax(-1)

    expected = probabilities(state)[..., kept]
    torch.testing.assert_close(probabilities(small), expected / expected.sum(-1, keepdim=True))
    assert new.model.backbone.mlp_experts.num_experts[0] == int(kept.sum())
    torch.testing.assert_close(small[f"{layer.name}.banks.0.w1"], state[f"{layer.name}.banks.0.w1"][kept])


def test_all_experts_stay_without_a_threshold():
    config, state = full()
    new, small = prune(config, state, ["cls", "det", "sem_seg"])
    assert new.model.backbone.mlp_experts.num_experts == [5] * 8
    assert small.keys() == state.keys() and all(torch.equal(small[key], state[key]) for key in state)
    new, small = prune(config, state, ["det"])
    assert new.model.backbone.mlp_experts.num_experts == [5] * 8
    assert not [key for key in small if "routers" in key and "routers.det" not in key]
    assert {key.split(".")[1] for key in small if key.startswith("tasks.")} == {"det"}
    for one, two in zip(features(build(new, small), "det"), features(build(config, state), "det"), strict=True):
        assert torch.equal(one, two)


def test_experts_of_two_layers_of_a_vision_transformer():
    """Attention heads and MLPs, each with a setting of its own, and routers that see different banks."""
    config, _ = full()
    config.model.backbone = dict(
        type="MoEViT",
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
        img_size=64,
        patch_size=16,
        tasks=["cls", "det", "sem_seg"],
        mlp_experts=dict(num_experts=[[4, 3]], top_k=2, every=2),
        attention_experts=dict(num_experts=[[3, 2]], top_k=2, every=2, offset=0),
        task_banks=dict(cls=1, det=1),
        window_size=None,
    )
    config.model.neck = dict(type="SimpleFeaturePyramid", in_channels=16, out_channels=32)
    config.model.tasks = dict(det=config.model.tasks.det)
    config.model.tasks.cls = dict(
        _scope_="mmpretrain",
        type="ImageClassifier",
        backbone=dict(type="mtadapt.SharedFeatures"),
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=2, in_channels=32),
    )
    config.model.routing = dict(cls="sem_seg")
    state = random_state(config)
    new, small = prune(config, state, ["cls", "det"], 0.15)
    backbone = new.model.backbone
    assert backbone.tasks == ["det", "sem_seg"] and backbone.task_banks == dict(det=1)
    assert new.model.routing == dict(cls="sem_seg")
    for setting, layer in (("attention_experts", "layers.0.attn"), ("mlp_experts", "layers.1.ffn")):
        use = state[f"backbone.{layer}.usage.load"][1:].amax(0) >= 0.15
        first = state[f"backbone.{layer}.banks.0.{'wq' if 'attn' in layer else 'w1'}"].shape[0]
        assert backbone[setting].num_experts == [[int(use[:first].sum()), int(use[first:].sum())]]
    model = build(new, small)
    reference = build(config, masked_seen(config, state))
    for task in ("cls", "det"):
        for one, two in zip(features(model, task), features(reference, task), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    new, small = prune(config, state, ["det"], 0.15)
    assert "task_banks" not in new.model.backbone and "routing" not in new.model
    assert all(isinstance(size, int) for size in new.model.backbone.mlp_experts.num_experts)
    build(new, small)


def masked_seen(config: Config, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return masked(config, state, ["det", "sem_seg"], 0.15)


def test_the_data_is_that_of_the_tasks():
    config, state = full()
    config.default_hooks.checkpoint.update(save_best="cls/top1", rule="greater")
    config.model.loss_weights = dict(cls=1.0, det=0.5)
    config.model.backbone.init_cfg = dict(type="Pretrained", checkpoint="nowhere.pth")
    new, _ = prune(config, state, ["det"], 0.16, keep_top_k=True)
    assert [*new.train_dataloader.dataset.sources] == ["coco"] == [*new.test_dataloader.dataset.sources]
    assert new.train_dataloader.batch_sampler.batch_size == dict(coco=2)
    assert [*new.val_evaluator.tasks] == ["det"] and [*config.val_evaluator.tasks] == ["cls", "det", "sem_seg"]
    assert "save_best" not in new.default_hooks.checkpoint
    assert new.model.loss_weights == dict(det=0.5) and "init_cfg" not in new.model.backbone
    assert new.load_from == "{{ fileDirname }}/model.pth"


def test_too_few_experts():
    config, state = full()
    layer = Experts.of(config).layers[3]
    loads = torch.stack([state[f"{each.name}.usage.load"][1] for each in Experts.of(config).layers])
    loads[3] = torch.tensor([0.05, 0.7, 0.1, 0.06, 0.09])
    for each, load in zip(Experts.of(config).layers, loads, strict=True):
        state[f"{each.name}.usage.load"][1] = load
    with pytest.raises(MTAdaptError) as caught:
        prune(config, state, ["det"], 0.101)
    told = f"{layer.name} would keep 1 expert(s) for task 'det', but top_k=2; the largest threshold that works is 0.1,"
    assert told in str(caught.value) and str(caught.value).startswith("--threshold 0.101: ")
    assert prune(config, state, ["det"], 0.1)[0].model.backbone.mlp_experts.num_experts[3] == 2
    new, small = prune(config, state, ["det"], 0.5, keep_top_k=True)
    assert new.model.backbone.mlp_experts.num_experts == [2] * 8
    torch.testing.assert_close(small[f"{layer.name}.usage.load"], torch.tensor([[0.7, 0.1]]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(tasks=["dett"]), "--tasks dett: no task of the config; it has cls, det, sem_seg"),
        (dict(threshold=1.0), "--threshold 1.0: write a share of the picks"),
        (dict(updates=0, threshold=0.1), "task 'det': the checkpoint has no statistics of its experts"),
        (dict(experts=6), r"ffn: the checkpoint has 5 experts, the config 6; give the config that it was trained with"),
        (dict(dense=True), "model.backbone: MoEDaViT has no experts; give a config with mlp_experts"),
    ],
)
def test_mistakes(change: dict, message: str):
    config, state = full()
    if "updates" in change:
        for key in state:
            if key.endswith("usage.updates"):
                state[key][1] = 0
    if "experts" in change:
        config.model.backbone.mlp_experts.num_experts = change["experts"]
    if "dense" in change:
        config.model.backbone.mlp_experts = None
    with pytest.raises(MTAdaptError, match=message):
        prune(config, state, change.get("tasks", ["det"]), change.get("threshold", 0.0))
