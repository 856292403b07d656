"""Small stock models and batches for tests."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import mmdet
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample

SHARED = dict(type="mtadapt.SharedFeatures")
NORMALISE = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_size_divisor=32)
BACKBONE = dict(type="mmdet.ResNet", depth=18, base_channels=8, norm_eval=True, frozen_stages=-1)
CHANNELS = [8, 16, 32, 64]
NECK = dict(type="mmdet.FPN", in_channels=CHANNELS, out_channels=32, num_outs=5)


def stock_config(name: str) -> ConfigDict:
    """The model of one of mmdet's own config files, narrowed, with 10 classes."""
    model = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs" / name).model
    model.pop("data_preprocessor")
    return model


def _narrow(node: dict, channels: int = 32) -> None:
    """Set every width that depends on the shared features."""
    for key, value in list(node.items()):
        if isinstance(value, dict):
            _narrow(value, channels)
        elif key in ("in_channels", "feat_channels", "out_channels") and value == 256:
            node[key] = channels
        elif key == "fc_out_channels":
            node[key] = 64
        elif key == "num_classes":
            node[key] = 10


def faster_rcnn() -> ConfigDict:
    model = stock_config("faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py")
    _narrow(model)
    model.neck = None
    return model


def fcos() -> ConfigDict:
    model = stock_config("fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py")
    _narrow(model)
    model.bbox_head.update(strides=[4, 8, 16, 32, 64], norm_on_bbox=True, centerness_on_reg=True)
    model.neck = None
    return model


def rtmdet() -> ConfigDict:
    """With the neck of its own config, on the backbone's features."""
    model = stock_config("rtmdet/rtmdet_tiny_8xb32-300e_coco.py")
    model.neck.update(in_channels=CHANNELS[1:], out_channels=32, norm_cfg=dict(type="BN"))
    model.bbox_head.update(in_channels=32, feat_channels=32, num_classes=10, norm_cfg=dict(type="BN"))
    model.backbone = dict(**SHARED, source="backbone", indices=(1, 2, 3))
    return model


def sparse_rcnn() -> ConfigDict:
    model = stock_config("sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py")
    model.neck = None
    model.rpn_head.update(num_proposals=20, proposal_feature_channel=32)
    roi = model.roi_head
    roi.update(num_stages=2, stage_loss_weights=[1, 1], proposal_feature_channel=32)
    roi.bbox_roi_extractor.out_channels = 32
    roi.bbox_head = roi.bbox_head[:2]
    for head in roi.bbox_head:
        head.update(num_classes=10, in_channels=32, feedforward_channels=64)
        head.dynamic_conv_cfg.update(in_channels=32, feat_channels=16, out_channels=32)
    model.train_cfg.rcnn = model.train_cfg.rcnn[:2]
    model.test_cfg.rcnn.max_per_img = 20
    return model


def dino() -> ConfigDict:
    """With the neck of its own config, on the backbone's features."""
    model = stock_config("dino/dino-4scale_r50_8xb2-12e_coco.py")
    model.num_queries = 20
    model.neck.in_channels = CHANNELS[1:]
    model.encoder.num_layers = model.decoder.num_layers = 1
    model.bbox_head.num_classes = 10
    model.dn_cfg.group_cfg.num_dn_queries = 10
    model.test_cfg.max_per_img = 20
    model.backbone = dict(**SHARED, source="backbone", indices=(1, 2, 3))
    return model


def fpn_head(num_classes: int = 19) -> ConfigDict:
    return ConfigDict(
        _scope_="mmseg",
        type="EncoderDecoder",
        backbone=SHARED,
        decode_head=dict(
            type="FPNHead",
            in_channels=[32] * 4,
            in_index=[0, 1, 2, 3],
            feature_strides=[4, 8, 16, 32],
            channels=32,
            dropout_ratio=0.0,
            num_classes=num_classes,
            norm_cfg=dict(type="GN", num_groups=8),
            align_corners=False,
            loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
        ),
        test_cfg=dict(mode="whole"),
    )


def uper_head(num_classes: int = 19) -> ConfigDict:
    """UPerNet with its auxiliary head, on the backbone's features."""
    head = dict(
        dropout_ratio=0.0,
        num_classes=num_classes,
        norm_cfg=dict(type="BN"),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    )
    return ConfigDict(
        _scope_="mmseg",
        type="EncoderDecoder",
        backbone=dict(**SHARED, source="backbone"),
        decode_head=dict(
            type="UPerHead", in_channels=CHANNELS, in_index=[0, 1, 2, 3], pool_scales=(1, 2), channels=16, **head
        ),
        auxiliary_head=dict(type="FCNHead", in_channels=32, in_index=2, channels=16, num_convs=1, **head),
        test_cfg=dict(mode="whole"),
    )


def classifier(num_classes: int = 5) -> ConfigDict:
    return ConfigDict(
        _scope_="mmpretrain",
        type="ImageClassifier",
        backbone=dict(**SHARED, source="backbone", indices=(3,)),
        neck=dict(type="GlobalAveragePooling"),
        head=dict(type="LinearClsHead", num_classes=num_classes, in_channels=64, loss=dict(type="CrossEntropyLoss")),
    )


DETECTORS = dict(faster_rcnn=faster_rcnn, fcos=fcos, rtmdet=rtmdet, sparse_rcnn=sparse_rcnn, dino=dino)
SEGMENTORS = dict(fpn_head=fpn_head, uper_head=uper_head)


def as_task(config: ConfigDict) -> ConfigDict:
    """A stock config as a task: the backbone replaced, unless the function above has chosen the features."""
    task = copy.deepcopy(config)
    task.setdefault("_scope_", "mmdet")
    if "SharedFeatures" not in str(task.get("backbone", {}).get("type")):
        task.backbone = ConfigDict(SHARED)
    return task


def multi_task_model(adapter: dict | None = None, backbone: dict = BACKBONE, **tasks: ConfigDict):
    """A seeded model with initialised weights; another backbone has the same channels."""
    torch.manual_seed(0)
    model = MODELS.build(
        dict(
            type="mtadapt.MultiTaskModel",
            data_preprocessor=dict(type="mtadapt.MultiTaskDataPreprocessor", **NORMALISE),
            backbone=backbone,
            neck=NECK,
            adapter=adapter,
            tasks={name: as_task(config) for name, config in tasks.items()},
        )
    )
    model.init_weights()
    return model


def batch(labelled: Sequence[Sequence[str]], sizes: Sequence[tuple[int, int]] | None = None, num_cls: int = 5) -> dict:
    """Random images with random labels of the given tasks, as the data loader's collate gives them."""
    generator = torch.Generator().manual_seed(3)
    sizes = sizes or [(96, 128)] * len(labelled)
    inputs, samples = [], []
    for number, (tasks, (height, width)) in enumerate(zip(labelled, sizes, strict=True)):
        inputs.append(torch.randint(0, 255, (3, height, width), generator=generator, dtype=torch.uint8))
        meta = dict(
            img_id=number,
            img_path=f"{number}.jpg",
            img_shape=(height, width),
            ori_shape=(height, width),
            scale_factor=(1.0, 1.0),
        )
        sample = MultiTaskDataSample(metainfo=dict(**meta, labelled_tasks=tuple(tasks)))
        for task in tasks:
            sample.set_task(task, _labels(task, height, width, meta, num_cls, generator))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def _labels(task: str, height: int, width: int, meta: dict, num_cls: int, generator: torch.Generator):
    if task == "det":
        corner = torch.rand(3, 2, generator=generator) * torch.tensor([width / 2, height / 2])
        side = 8 + torch.rand(3, 2, generator=generator) * torch.tensor([width / 2 - 8, height / 2 - 8])
        boxes = InstanceData(
            bboxes=torch.cat([corner, corner + side], 1), labels=torch.randint(0, 10, (3,), generator=generator)
        )
        ignored = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
        return DetDataSample(gt_instances=boxes, ignored_instances=ignored, metainfo=meta)
    if task == "cls":
        return DataSample(metainfo=meta).set_gt_label(int(torch.randint(0, num_cls, (1,), generator=generator)))
    classes = 3 if task == "drivable" else 19
    seg_map = torch.randint(0, classes, (1, height, width), generator=generator, dtype=torch.uint8)
    return SegDataSample(gt_sem_seg=PixelData(data=seg_map), metainfo=meta)
