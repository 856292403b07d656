"""One bottleneck a level: the identity at the start, alone and as one more neck of stock models."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from mtadapt.errors import MTAdaptError
from mtadapt.models import BottleneckAdapter, MultiScaleAdapter
from mtadapt.registry import MODELS
from tests import models
from tests.models import BACKBONE, CHANNELS, NECK, batch, multi_task_model


def pyramid(channels: list[int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(2, width, 32 >> level, 48 >> level, generator=generator) for level, width in enumerate(channels)
    ]


@pytest.mark.parametrize("conv", ["dense", "depthwise"])
@pytest.mark.parametrize(("in_channels", "channels"), [([24, 40, 112, 320], [24, 40, 112, 320]), (32, [32] * 5)])
def test_identity_at_the_start(conv: str, in_channels: int | list[int], channels: list[int]):
    adapter = MultiScaleAdapter(in_channels, conv=conv)
    for init_cfg in (None, dict(type="Kaiming", layer="Conv2d")):
        adapter.init_cfg = init_cfg
        adapter.init_weights()
        feats = pyramid(channels)
        outputs = adapter(feats)
        assert isinstance(outputs, tuple)
        assert all(torch.equal(ours, feat) for ours, feat in zip(outputs, feats, strict=True))
        adapter = MultiScaleAdapter(in_channels, conv=conv)


def test_size():
    """1x1 down, depthwise 3x3, 1x1 up, each with a bias."""
    widths = [24, 40, 112, 320]
    expected = sum(c * (c // 4) + c // 4 + 10 * (c // 4) + c * (c // 4) + c for c in widths)
    assert sum(parameter.numel() for parameter in MultiScaleAdapter(widths).parameters()) == expected == 60420
    assert len(MultiScaleAdapter(256, num_levels=4).levels) == 4


def test_a_level_is_changed_by_its_own_adapter_alone():
    adapter = MultiScaleAdapter([8, 8, 8], ratio=2)
    torch.nn.init.ones_(adapter.levels[1].up.weight)
    feats = pyramid([8, 8, 8])
    outputs = adapter(feats)
    assert torch.equal(outputs[0], feats[0]) and torch.equal(outputs[2], feats[2])
    assert not torch.equal(outputs[1], feats[1])
    outputs[2].sum().backward()
    assert all(
        (parameter.grad is not None) == name.startswith("levels.2") for name, parameter in adapter.named_parameters()
    )


def test_trained_adapters_are_loaded(tmp_path: Path):
    trained = MultiScaleAdapter(8, num_levels=2)
    for parameter in trained.parameters():
        torch.nn.init.normal_(parameter)
    torch.save(trained.state_dict(), tmp_path / "adapter.pth")
    adapter = MultiScaleAdapter(8, num_levels=2, init_cfg=dict(type="Pretrained", checkpoint=f"{tmp_path}/adapter.pth"))
    adapter.init_weights()
    for name, value in trained.state_dict().items():
        assert torch.equal(adapter.state_dict()[name], value), name


def losses_of(model: torch.nn.Module, data: dict) -> dict:
    torch.manual_seed(1)
    losses = model(**model.data_preprocessor(copy.deepcopy(data), True), mode="loss")
    return {name: value for name, value in losses.items() if "loss" in name}


def same_losses(adapted: torch.nn.Module, plain: torch.nn.Module, position: int, data: dict) -> None:
    """Equal losses with equal weights, until the adapters are changed.

    Args:
        position: that of the plain model's neck among the necks of the adapted one.
    """
    weights = {key.replace(f"neck.{position}.", "neck."): value for key, value in adapted.state_dict().items()}
    assert not plain.load_state_dict(weights, strict=False).missing_keys
    expected = losses_of(plain.train(), data)
    losses = losses_of(adapted.train(), data)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=0, atol=0)
    for module in adapted.modules():
        if isinstance(module, BottleneckAdapter):
            torch.nn.init.normal_(module.up.weight)
    total, _ = plain.parse_losses(expected)
    assert adapted.parse_losses(losses_of(adapted, data))[0] != total


def test_one_more_neck_of_stock_faster_rcnn():
    """In mmdet's scope, after mmdet's start of the weights, the losses are those of the stock model."""
    adapter = dict(type="mtadapt.MultiScaleAdapter", in_channels=32)
    config = ConfigDict(models.faster_rcnn(), data_preprocessor=dict(type="DetDataPreprocessor", pad_size_divisor=32))
    config.backbone = dict(BACKBONE, type="ResNet")
    fpn = dict(NECK, type="FPN")
    with DefaultScope.overwrite_default_scope("mmdet"):
        stock = MODELS.build(ConfigDict(config, neck=fpn))
        adapted = MODELS.build(ConfigDict(config, neck=[fpn, adapter]))
    adapted.init_weights()
    data = batch([("det",)] * 2)
    data["data_samples"] = [sample.det for sample in data["data_samples"]]
    same_losses(adapted, stock, 0, data)


def test_necks_of_the_multi_task_model():
    plain = multi_task_model(det=models.fcos(), sem_seg=models.fpn_head())
    config = dict(type="mtadapt.MultiTaskModel", data_preprocessor=dict(type="MultiTaskDataPreprocessor"))
    config["tasks"] = dict(det=models.as_task(models.fcos()), sem_seg=models.fpn_head())
    necks = [
        dict(type="mtadapt.MultiScaleAdapter", in_channels=CHANNELS),
        NECK,
        dict(type="MultiScaleAdapter", in_channels=32),
    ]
    adapted = MODELS.build(dict(config, backbone=BACKBONE, neck=necks))
    adapted.init_weights()
    adapted.data_preprocessor = plain.data_preprocessor
    assert sum(isinstance(module, BottleneckAdapter) for module in adapted.modules()) == 9
    same_losses(adapted, plain, 1, batch([("det", "sem_seg")] * 2))


def test_mistakes():
    with pytest.raises(MTAdaptError, match=r"in_channels=\[8, 16\] has 2 levels, num_levels=3; give one number"):
        MultiScaleAdapter([8, 16], num_levels=3)
    with pytest.raises(MTAdaptError, match=r"in_channels=\[\] has 0 levels"):
        MultiScaleAdapter([])
    adapter = MultiScaleAdapter([8, 16])
    with pytest.raises(MTAdaptError, match=r"\[8, 16\] \(2 levels\), but the features have \[8, 16, 32\] \(3 levels\)"):
        adapter(pyramid([8, 16, 32]))
    with pytest.raises(
        MTAdaptError, match=r"\[8, 16\] \(2 levels\), but the features have \[8, 12\] \(2 levels\); corr"
    ):
        adapter(pyramid([8, 12]))
