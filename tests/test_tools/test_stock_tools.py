"""LV-Adapter as a plain neck: the stock libraries' own ``tools/train.py`` on their own configs, one neck entry more."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import mmdet
import mmseg
import pytest

from mtadapt.datasets.bdd100k import BDD100KDataset
from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.datasets.synthetic import write_bdd100k
from tests.command_line import run

DETECTOR = """
_base_ = "mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py"
custom_imports = dict(imports=["mtadapt"])
classes = {classes}
model = dict(
    backbone=dict(init_cfg=None),
    neck=[
        dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=5),
        dict(
            type="mtadapt.LVAdapter",
            in_channels=256,
            prompts=dict(det=classes),
            text_encoder=dict(type="mtadapt.PrecomputedTextEmbeddings"),
        ),
    ],
    roi_head=dict(bbox_head=dict(num_classes=10)),
)
scale = (160, 96)
data = dict(
    data_root="data", data_prefix=dict(img="images/100k/train"), ann_file="coco.json", metainfo=dict(classes=classes)
)
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=data)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=data)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file="data/coco.json")
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""

SEGMENTOR = """
_base_ = "{base}"
custom_imports = dict(imports=["mtadapt"])
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(64, 96)),
    neck=[
        dict(type="FPN", in_channels=[256, 512, 1024, 2048], out_channels=256, num_outs=4),
        dict(
            type="mtadapt.LVAdapter",
            in_channels=256,
            num_levels=4,
            prompts=dict(sem_seg={classes}),
            text_encoder=dict(type="mtadapt.PrecomputedTextEmbeddings"),
        ),
    ],
)
pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomCrop", crop_size=(64, 96)),
    dict(type="PackSegInputs"),
]
test_pipeline = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
data = dict(
    type="BDD100KDataset",
    data_root="data",
    data_prefix=dict(img_path="images/10k/train", seg_map_path="labels/sem_seg/masks/train"),
)
train_dataloader = dict(
    batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(_delete_=True, **data, pipeline=pipeline)
)
val_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(_delete_=True, **data, pipeline=test_pipeline)
)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=2, val_interval=2)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes in BDD100K's layout, and their boxes as COCO JSON."""
    folder = tmp_path_factory.mktemp("stock")
    write_bdd100k(folder / "data", train=2, val=1, size=(160, 96), seed=1, workers=1)
    dataset = BDD100KDataset(data_root=str(folder / "data"), tasks=("det",))
    images, annotations = [], []
    for number in range(len(dataset)):
        info = dataset.get_data_info(number)
        height, width = cv2.imread(info["img_path"]).shape[:2]
        images.append(dict(id=number, file_name=Path(info["img_path"]).name, height=height, width=width))
        for x1, y1, x2, y2, label in ((*box[:4], 0) for box in [(8, 8, 60, 60), (70, 20, 120, 80)]):
            box = [x1, y1, x2 - x1, y2 - y1]
            area, key = box[2] * box[3], len(annotations) + 1
            annotations.append(dict(id=key, image_id=number, bbox=box, area=area, category_id=label + 1, iscrowd=0))
    names = METAINFO["tasks"]["det"]["classes"]
    categories = [dict(id=number + 1, name=name) for number, name in enumerate(names)]
    document = dict(images=images, annotations=annotations, categories=categories)
    (folder / "data/coco.json").write_text(json.dumps(document))
    return folder


def test_mmdet_faster_rcnn(folder: Path):
    (folder / "det.py").write_text(DETECTOR.format(classes=METAINFO["tasks"]["det"]["classes"]))
    script = Path(mmdet.__file__).parent / ".mim/tools/train.py"
    sizes = [
        f"{split}_dataloader.dataset.pipeline.{number}.scale=(160,96)" for split, number in (("train", 2), ("val", 1))
    ]
    printed = run(script, "det.py", "--cfg-options", *sizes, cwd=folder)
    assert "Epoch(train) [1][1/1]" in printed and "coco/bbox_mAP" in printed
    assert (folder / "work_dirs/det/epoch_1.pth").is_file()


def test_mmseg_semantic_fpn(folder: Path):
    base = Path(mmseg.__file__).parent / ".mim/configs/sem_fpn/fpn_r50_4xb2-80k_cityscapes-512x1024.py"
    (folder / "seg.py").write_text(SEGMENTOR.format(base=base, classes=METAINFO["tasks"]["sem_seg"]["classes"]))
    printed = run(Path(mmseg.__file__).parent / ".mim/tools/train.py", "seg.py", cwd=folder)
    assert "Iter(train) [2/2]" in printed and "mIoU" in printed
    assert (folder / "work_dirs/seg/iter_2.pth").is_file()
