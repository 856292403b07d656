"""Checkpoints of ResNets in every public layout give the features of the model that they were made from."""

from __future__ import annotations

import re
from pathlib import Path

import mmdet.models
import mmpretrain.models  # noqa: F401 (registers)
import mmseg.models
import pytest
import timm
import torch
import torchvision
from mmengine.registry import DefaultScope
from mmpretrain.models import ResNet
from mmpretrain.registry import MODELS
from safetensors.torch import save_file
from torch import Tensor, nn

from mtadapt.zoo import load_backbone
from tests.test_zoo.layouts import assert_same, behind, randomised, save, some, training, twice, without

ALL = (0, 1, 2, 3)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return randomised(torchvision.models.resnet18(num_classes=5))


def features(model: nn.Module, image: Tensor) -> list[Tensor]:
    """The four levels of torchvision's ResNet."""
    x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
    levels = []
    for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
        x = stage(x)
        levels.append(x)
    return levels


def by_number(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """torch.nn.Sequential over the children: convolution 0, norm 1, stages 4 to 7."""
    numbers = dict(conv1=0, bn1=1, layer1=4, layer2=5, layer3=6, layer4=7)
    parts = (name.split(".", 1) for name in state if not name.startswith("fc"))
    return {f"{numbers[first]}.{rest}": state[f"{first}.{rest}"] for first, rest in parts}


def vissl(state: dict[str, Tensor]) -> dict:
    trunk = behind("_feature_blocks.", without(state, "fc"))
    model = dict(trunk=trunk, heads=some("0.clf.0.weight"))
    return dict(classy_state_dict=dict(base_model=dict(model=model), loss=dict(), optimizer=dict()), phase_idx=99)


# name: the file made from the entries of torchvision's model, and what the report says of it.
LAYOUTS = dict(
    torchvision=(lambda state: state, r"torchvision names without a prefix"),
    dino_resnet=(lambda state: without(state, "fc"), r"torchvision names"),
    moco_v1=(
        twice("module.encoder_q.", "module.encoder_k.", "module.queue", arch="resnet50"),
        r"MoCo v1, .*torchvision names behind 'module\.encoder_q\.'",
    ),
    moco_v2=(
        lambda state: twice("module.encoder_q.", "module.encoder_k.", "module.encoder_q.fc.2.weight", "module.queue")(
            without(state, "fc")
        ),
        r"MoCo v2, .*torchvision names behind 'module\.encoder_q\.'",
    ),
    moco_v3=(
        twice("module.base_encoder.", "module.momentum_encoder.", "module.predictor.0.weight"),
        r"MoCo v3, .*behind 'module\.base_encoder\.'",
    ),
    simclr=(
        lambda state: training({**behind("backbone.", without(state, "fc")), **some("backbone.fc.0.weight")}),
        r"behind 'backbone\.'",
    ),
    simclr_vissl=(vissl, r"VISSL, .*behind '_feature_blocks\.'|VISSL, .*behind 'trunk\._feature_blocks\.'"),
    swav=(
        lambda state: {
            **behind("module.", without(state, "fc")),
            **some("module.projection_head.0.weight", "module.prototypes.weight"),
        },
        r"SwAV, .*behind 'module\.'",
    ),
    byol_by_number=(
        lambda state: dict(
            online_network_state_dict=behind("encoder.", by_number(state)),
            target_network_state_dict=behind("encoder.", by_number(state), change=1),
        ),
        r"BYOL, .*children by number behind 'online_network_state_dict\.encoder\.'",
    ),
    byol_lucidrains=(twice("online_encoder.net.", "target_encoder.net."), r"BYOL, .*behind 'online_encoder\.net\.'"),
    byol_backbone=(
        lambda state: dict(
            online_backbone=behind("module.", state), target_backbone=behind("module.", state, change=1), steps=3
        ),
        r"BYOL, .*behind 'online_backbone\.module\.'",
    ),
    densecl=(
        lambda state: training(
            {
                **behind("backbone.", without(state, "fc")),
                **behind("encoder_q.0.", without(state, "fc")),
                **behind("encoder_k.0.", without(state, "fc"), change=1),
                **some("encoder_q.1.mlp2.0.weight", "queue2"),
            }
        ),
        r"DenseCL, .*behind '(backbone|encoder_q\.0)\.'",
    ),
    simsiam=(
        lambda state: training(
            {
                **behind("module.encoder.", without(state, "fc")),
                **some("module.encoder.fc.0.weight", "module.predictor.0.weight"),
            }
        ),
        r"SimSiam, .*behind 'module\.encoder\.'",
    ),
    barlow_twins=(
        lambda state: training(
            {**behind("module.backbone.", without(state, "fc")), **some("module.projector.0.weight", "module.bn.x")},
            key="model",
        ),
        r"Barlow Twins, .*behind 'module\.backbone\.'",
    ),
    pixpro=(
        twice("module.encoder.", "module.encoder_k.", "module.projector.linear1.weight", key="model"),
        r"PixPro, .*behind 'module\.encoder\.'",
    ),
    detco=(
        lambda state: training(
            {
                **behind("module.encoder_q.", without(state, "fc")),
                **behind("module.encoder_k.", without(state, "fc"), change=1),
                **some("module.encoder_q.local_mlp.0.weight", "module.queue"),
            }
        ),
        r"DetCo, .*behind 'module\.encoder_q\.'",
    ),
    dino=(
        lambda state: dict(
            student={**behind("module.backbone.", state, change=1), **some("module.head.mlp.0.weight")},
            teacher={**behind("backbone.", state), **some("head.mlp.0.weight")},
            optimizer=dict(state={}),
            dino_loss=some("center"),
        ),
        r"DINO, .*behind 'teacher\.backbone\.'",
    ),
)


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_features_of_torchvision(tmp_path: Path, resnet: nn.Module, name: str):
    make, words = LAYOUTS[name]
    # Files of 2019 and 2020 are no zip archives.
    path = save(tmp_path / "c.pth.tar", make(resnet.state_dict()), _use_new_zipfile_serialization="v1" not in name)
    backbone = ResNet(18, out_indices=ALL)
    backbone.eval()
    report = load_backbone(path, backbone)
    image = torch.randn(2, 3, 64, 64)
    assert_same(backbone(image), features(resnet, image))
    assert re.search(words, report.format), report.format
    assert report.share == 1 and not report.missing and not report.reshaped


@pytest.mark.parametrize("build", [mmdet.models.ResNet, mmseg.models.ResNet])
def test_other_libraries(tmp_path: Path, resnet: nn.Module, build: type):
    path = save(tmp_path / "moco.pth", LAYOUTS["moco_v2"][0](resnet.state_dict()))
    backbone = build(18)
    backbone.eval()
    load_backbone(path, backbone)
    image = torch.randn(2, 3, 64, 64)
    assert_same(backbone(image), features(resnet, image))


def test_safetensors(tmp_path: Path, resnet: nn.Module):
    save_file(resnet.state_dict(), tmp_path / "r.safetensors")
    backbone = ResNet(18, out_indices=ALL)
    backbone.eval()
    assert load_backbone(tmp_path / "r.safetensors", backbone).unexpected == ("fc.bias", "fc.weight")
    image = torch.randn(1, 3, 64, 64)
    assert_same(backbone(image), features(resnet, image))


TIMM = [
    ("resnet50", dict(type="ResNet", depth=50)),
    ("resnet50c", dict(type="mmseg.ResNetV1c", depth=50)),
    ("resnet50d", dict(type="ResNetV1d", depth=50)),
    ("resnet50d", dict(type="mmdet.ResNetV1d", depth=50)),
]


@pytest.mark.parametrize(("name", "config"), TIMM)
def test_timm(tmp_path: Path, name: str, config: dict):
    model = randomised(timm.create_model(name, num_classes=3))
    path = save(tmp_path / "timm.pth", model.state_dict())
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        backbone = MODELS.build(dict(config, out_indices=ALL))
    backbone.eval()
    report = load_backbone(path, backbone)
    assert report.share == 1
    image = torch.randn(1, 3, 64, 64)
    expected = model.forward_intermediates(image, indices=4, intermediates_only=True)
    assert_same(backbone(image), expected, rtol=1e-3, atol=1e-4)


SMALL = dict(type="ResNet", depth=18, norm_cfg=dict(type="BN"))
NECK = dict(type="NonLinearNeck", in_channels=512, hid_channels=8, out_channels=8, with_avg_pool=True)
LINEAR = dict(type="LinearNeck", in_channels=512, out_channels=8, with_avg_pool=True)
PREDICTOR = dict(type="NonLinearNeck", in_channels=8, hid_channels=8, out_channels=8, with_avg_pool=False)
LATENT = dict(type="LatentPredictHead", predictor=PREDICTOR, loss=dict(type="CosineSimilarityLoss"))
CONTRASTIVE = dict(type="ContrastiveHead", loss=dict(type="CrossEntropyLoss"))
SELF_SUPERVISED = dict(
    MoCo=dict(neck=NECK, head=CONTRASTIVE, queue_len=16, feat_dim=8),
    SimCLR=dict(neck=NECK, head=CONTRASTIVE),
    BYOL=dict(neck=NECK, head=LATENT, base_momentum=0.01),
    SwAV=dict(
        neck=dict(type="SwAVNeck", in_channels=512, hid_channels=8, out_channels=8, norm_cfg=dict(type="BN")),
        head=dict(type="SwAVHead", loss=dict(type="SwAVLoss", feat_dim=8, num_prototypes=[4])),
    ),
    DenseCL=dict(
        neck=dict(type="DenseCLNeck", in_channels=512, hid_channels=8, out_channels=8, num_grid=None),
        head=CONTRASTIVE,
        queue_len=16,
        feat_dim=8,
    ),
    SimSiam=dict(neck=NECK, head=LATENT),
    BarlowTwins=dict(
        neck=NECK,
        head=dict(type="LatentCrossCorrelationHead", in_channels=8, loss=dict(type="CrossCorrelationLoss")),
    ),
    MoCoV3=dict(
        neck=NECK,
        head=dict(type="MoCoV3Head", predictor=PREDICTOR, loss=dict(type="CrossEntropyLoss")),
        base_momentum=0.01,
    ),
)


@pytest.mark.parametrize("name", SELF_SUPERVISED)
def test_the_classes_of_mmpretrain(tmp_path: Path, name: str):
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        model = MODELS.build(dict(type=name, backbone=SMALL, **SELF_SUPERVISED[name]))
    model = randomised(model)
    path = save(tmp_path / "mm.pth", dict(meta=dict(epoch=1), state_dict=model.state_dict()))
    backbone = ResNet(18)
    backbone.eval()
    report = load_backbone(path, backbone)
    assert report.format.endswith("behind 'backbone.'") and report.share == 1
    image = torch.randn(1, 3, 64, 64)
    assert_same(backbone(image), model.backbone(image), rtol=0, atol=0)
