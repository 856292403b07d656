"""A small pre-trainer and batches for it."""

from __future__ import annotations

from typing import Any

import torch
from mmpretrain.structures import DataSample

from mtadapt.models import HeuristicPretrainer
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample

LABELS = dict(style=["weather=clear", "weather=rainy"], objects=["car", "bus", "train"])
NUM_LABELS = 5
SWIN = dict(
    type="mmpretrain.SwinTransformer",
    arch=dict(embed_dims=16, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2]),
    img_size=64,
    stage_cfgs=dict(block_cfgs=dict(window_size=2)),
    drop_path_rate=0.0,
)
RESNET = dict(type="mmpretrain.ResNet", depth=18, stem_channels=8, base_channels=8, zero_init_residual=False)
VIT = dict(
    type="mmpretrain.VisionTransformer",
    arch=dict(embed_dims=32, num_layers=2, num_heads=2, feedforward_channels=64),
    img_size=64,
    patch_size=16,
    out_type="featmap",
)
#: Config, channels and stride of the last map, and pixels of a token (of a hidden patch where there are none).
BACKBONES = dict(swin=(SWIN, 128, 32, 4), resnet=(RESNET, 64, 32, 32), vit=(VIT, 32, 16, 16))


def settings(backbone: str = "swin", patches: bool = True) -> dict:
    """Config of all three branches."""
    config, channels, stride, _ = BACKBONES[backbone]
    neck = "DenseCLNeck" if patches else "MoCoV2Neck"
    return dict(
        type="mtadapt.HeuristicPretrainer",
        backbone=config,
        multi_label=dict(type="mtadapt.LinearMultiLabelHead", in_channels=channels, labels=LABELS),
        masked_image=dict(in_channels=channels, encoder_stride=stride),
        contrastive=dict(
            projector=dict(type=f"mmpretrain.{neck}", in_channels=channels, hid_channels=16, out_channels=8),
            queue_len=10,
            patch_weight=0.5 if patches else 0.0,
        ),
        data_preprocessor=dict(type="mtadapt.PretrainDataPreprocessor", mean=[120.0] * 3, std=[60.0] * 3),
    )


def build(kind: str = "swin", patches: bool = True, seed: int = 0, **changes: Any) -> HeuristicPretrainer:
    """A model with the values of a seed, in training mode."""
    torch.manual_seed(seed)
    model = MODELS.build({**settings(kind, patches), **changes})
    model.init_weights()
    model.train()
    return model


def batch(number: int = 4, views: int = 2, token: int = 4, size: int = 64, seed: int = 0) -> dict:
    """What a data loader gives: uint8 views, labels of which some are unknown, and masks of 2 x 2 patches."""
    generator = torch.Generator().manual_seed(seed)
    images, samples = [], []
    for index in range(number):
        images.append(torch.randint(0, 256, (views, 3, size, size), dtype=torch.uint8, generator=generator))
        native = DataSample().set_gt_score(torch.randint(-1, 2, (NUM_LABELS,), generator=generator).float())
        sample = MultiTaskDataSample(metainfo=dict(img_path=f"{index}.jpg", labelled_tasks=("mlc",)))
        sample.set_task("mlc", native)
        mask = torch.zeros(2, 2)
        mask[index % 2, index // 2 % 2] = mask[0, 1] = 1
        side = size // 2 // token
        sample.mask = mask.repeat_interleave(side, 0).repeat_interleave(side, 1).bool()
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)
