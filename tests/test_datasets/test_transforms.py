"""Boxes and all maps move together, to the pixel, under the stock transforms; the image stays uint8."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.dataset import Compose

from mtadapt.datasets import BDD100KDataset
from mtadapt.errors import MTAdaptError
from mtadapt.registry import TRANSFORMS

OBJECT = (20, 12, 44, 36)


def pipeline(*transforms: dict) -> Compose:
    return Compose([TRANSFORMS.build(transform) for transform in transforms])


def scene(tmp_path, size: tuple[int, int] = (96, 64)) -> dict:
    """One rectangle that is white in the image, class 5 in one map, 1 in the other, and a box."""
    import cv2

    width, height = size
    x1, y1, x2, y2 = OBJECT
    image = np.zeros((height, width, 3), np.uint8)
    sem_seg = np.zeros((height, width), np.uint8)
    drivable = np.full((height, width), 2, np.uint8)
    image[y1:y2, x1:x2], sem_seg[y1:y2, x1:x2], drivable[y1:y2, x1:x2] = 255, 5, 1
    paths = {name: str(tmp_path / f"{name}.png") for name in ("image", "sem_seg", "drivable")}
    for name, pixels in (("image", image), ("sem_seg", sem_seg), ("drivable", drivable)):
        assert cv2.imwrite(paths[name], pixels)
    return dict(
        img_path=paths["image"],
        img_id=0,
        labelled_tasks=("det", "sem_seg", "drivable"),
        boxes=np.array([OBJECT], np.float32),
        box_labels=np.array([2], np.uint8),
        box_ignore=np.array([False]),
        seg_map_paths=dict(sem_seg=paths["sem_seg"], drivable=paths["drivable"]),
        num_classes=dict(sem_seg=19, drivable=3),
    )


def extents(mask: torch.Tensor) -> list[int]:
    rows, columns = torch.where(mask)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


LOAD = (dict(type="LoadImage"), dict(type="LoadMultiTaskAnnotations"))
PACK = dict(type="PackMultiTaskInputs")
GEOMETRY = {
    "none": (),
    "flip": (dict(type="mmdet.RandomFlip", prob=1.0),),
    "vertical flip": (dict(type="mmdet.RandomFlip", prob=1.0, direction="vertical"),),
    "resize": (dict(type="mmdet.Resize", scale=(192, 128), keep_ratio=True),),
    "resize apart": (dict(type="mmdet.Resize", scale=(48, 128)),),
    "random resize": (
        dict(type="RandomResize", scale=(192, 128), ratio_range=(0.5, 2), keep_ratio=True, resize_type="mmdet.Resize"),
    ),
    "crop": (dict(type="mmdet.RandomCrop", crop_size=(80, 48), allow_negative_crop=True),),
    "all": (
        dict(type="mmdet.Resize", scale=(192, 128), keep_ratio=True),
        dict(type="mmdet.RandomCrop", crop_size=(150, 100), allow_negative_crop=True),
        dict(type="mmdet.RandomFlip", prob=1.0),
        dict(type="mmseg.PhotoMetricDistortion"),
    ),
}


@pytest.mark.parametrize("name", GEOMETRY)
@pytest.mark.parametrize("seed", range(3))
def test_boxes_and_maps_move_together(tmp_path, name: str, seed: int):
    np.random.seed(seed)  # noqa: NPY002 (the stock transforms draw from it)
    data = pipeline(*LOAD, *GEOMETRY[name], PACK)(scene(tmp_path))
    sample = data["data_samples"]
    assert data["inputs"].dtype == torch.uint8
    sem_seg, drivable = sample.sem_seg.gt_sem_seg.data, sample.drivable.gt_sem_seg.data
    assert sem_seg.shape[1:] == drivable.shape[1:] == data["inputs"].shape[1:] == tuple(sample.img_shape)
    assert torch.equal(sem_seg == 5, drivable == 1)
    expected = torch.tensor([extents(sem_seg[0] == 5)], dtype=torch.float32)
    torch.testing.assert_close(sample.det.gt_instances.bboxes.tensor, expected, rtol=0, atol=1.0)
    if "Photo" not in str(GEOMETRY[name]):
        bright = data["inputs"][0] > 127
        torch.testing.assert_close(torch.tensor([extents(bright)]).float(), expected, rtol=0, atol=1.0)


def test_flip_is_exact(tmp_path):
    data = pipeline(*LOAD, dict(type="mmdet.RandomFlip", prob=1.0), PACK)(scene(tmp_path))
    assert data["data_samples"].det.gt_instances.bboxes.tensor.tolist() == [[96 - 44, 12, 96 - 20, 36]]
    assert extents(data["data_samples"].drivable.gt_sem_seg.data[0] == 1) == [96 - 44, 12, 96 - 20, 36]


def test_validation_keeps_the_ground_truth_at_file_size(tmp_path):
    data = pipeline(LOAD[0], dict(type="mmdet.Resize", scale=(192, 128)), LOAD[1], PACK)(scene(tmp_path))
    assert data["inputs"].shape == (3, 128, 192)
    assert data["data_samples"].sem_seg.gt_sem_seg.data.shape == (1, 64, 96)
    assert data["data_samples"].det.gt_instances.bboxes.tensor.tolist() == [[20, 12, 44, 36]]


def test_cropping_with_mmseg_needs_maps_alone(tmp_path):
    """mmseg's RandomCrop would leave boxes behind, so it sees the maps only where there are no boxes."""
    info = scene(tmp_path)
    alone = dict(info, labelled_tasks=("sem_seg",), seg_map_paths=dict(sem_seg=info["seg_map_paths"]["sem_seg"]))
    del alone["boxes"]
    crop = dict(type="mmseg.RandomCrop", crop_size=(40, 60), cat_max_ratio=0.75)
    data = pipeline(*LOAD, crop, PACK)(alone)
    assert data["data_samples"].sem_seg.gt_sem_seg.data.shape == (1, 40, 60)
    data = pipeline(*LOAD, crop, PACK)(scene(tmp_path))
    assert data["data_samples"].sem_seg.gt_sem_seg.data.shape[-2:] != data["inputs"].shape[-2:]


def test_pack_errors(tmp_path):
    with pytest.raises(MTAdaptError, match="task 'det' has no boxes; add LoadMultiTaskAnnotations"):
        pipeline(LOAD[0], PACK)(scene(tmp_path))
    with pytest.raises(MTAdaptError, match="no kind for task 'lane'"):
        pipeline(*LOAD, PACK)(dict(scene(tmp_path), labelled_tasks=("lane",)))
    with pytest.raises(MTAdaptError, match=r"unknown kinds \{'lane': 'line'\}; known: boxes, map, label"):
        TRANSFORMS.build(dict(type="PackMultiTaskInputs", kinds=dict(lane="line")))


def test_own_dense_task_and_label(tmp_path):
    info = scene(tmp_path)
    info.update(
        labelled_tasks=("lane", "cls"),
        gt_label=3,
        seg_map_paths=dict(lane=info["seg_map_paths"]["sem_seg"]),
        num_classes=dict(lane=6),
    )
    sample = pipeline(*LOAD, dict(type="PackMultiTaskInputs", kinds=dict(lane="map")))(info)["data_samples"]
    assert extents(sample.lane.gt_sem_seg.data[0] == 5) == list(OBJECT)
    assert sample.cls.gt_label.tolist() == [3]


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (dict(type="mmdet.RandomAffine"), "mmdet.RandomAffine moves the image, but not the maps"),
        (dict(type="mmseg.RandomRotate", prob=1, degree=9), "mmseg.RandomRotate does not move boxes"),
        (dict(type="RandomFlip", prob=0.5), "RandomFlip does not move mmdet's boxes; write mmdet.RandomFlip"),
        (dict(type="mmseg.Resize", scale=(9, 9)), "write mmdet.Resize"),
        (
            dict(type="RandomResize", scale=(9, 9)),
            "RandomResize with resize_type='none'; write resize_type='mmdet.Resize'",
        ),
    ],
)
def test_transforms_that_leave_labels_behind_are_refused(bdd, transform: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        BDD100KDataset(data_root=str(bdd.root), pipeline=[*LOAD, transform, PACK])


def test_transforms_that_suit_the_tasks_are_allowed(bdd):
    rotate = dict(type="mmseg.RandomRotate", prob=1.0, degree=9)
    data = BDD100KDataset(data_root=str(bdd.root), tasks="sem_seg", pipeline=[*LOAD, rotate, PACK])[0]
    plain = BDD100KDataset(data_root=str(bdd.root), tasks="sem_seg", pipeline=[*LOAD, PACK])[0]
    maps = [one["data_samples"].sem_seg.gt_sem_seg.data for one in (data, plain)]
    assert not torch.equal(*maps) and not torch.equal(data["inputs"], plain["inputs"])
    BDD100KDataset(data_root=str(bdd.root), tasks="det", pipeline=[*LOAD, dict(type="mmdet.RandomAffine"), PACK])[0]
