"""The three layouts of painted scenes, read back with the stock dataset classes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.datasets.bdd100k_writer import DET_CATEGORIES, Box
from mtadapt.datasets.synthetic import render_scene, write_heterogeneous
from mtadapt.datasets.synthetic.heterogeneous_writer import CROP_CLASSES, CROP_SCENE, crop_box, crop_counts
from mtadapt.errors import MTAdaptError
from mtadapt.registry import DATASETS

TOOL = Path(__file__).parents[2] / "tools/dataset_converters/synthetic_heterogeneous.py"
SIZE = (160, 96)
CALL = dict(train=9, val=8, size=SIZE, seed=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heterogeneous")
    assert write_heterogeneous(folder, **CALL, workers=2)  # type: ignore[arg-type]
    return folder


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*.*") if path.is_file()}


def close(image: np.ndarray, painted: np.ndarray) -> bool:
    """Whether a JPEG shows a painted image."""
    return image.shape == painted.shape and np.abs(image.astype(int) - painted).mean() < 6


@pytest.mark.parametrize(("split", "count"), [("train", 9), ("val", 8)])
def test_imagenet_folders(root: Path, split: str, count: int) -> None:
    dataset = DATASETS.build(
        dict(
            _scope_="mmpretrain",
            type="ImageNet",
            data_root=str(root / "imagenet"),
            split=split,
            metainfo=dict(classes=CROP_CLASSES),
            pipeline=[dict(type="LoadImageFromFile")],
        )
    )
    assert len(dataset) == count
    labels = dataset.get_gt_labels().tolist()
    assert [labels.count(label) for label in range(8)] == list(crop_counts(count).values())
    for item in dataset:
        assert Path(item["img_path"]).parent.name == CROP_CLASSES[item["gt_label"]]
        height, width = item["img"].shape[:2]
        assert height == width and 24 <= height <= 128


def test_crops_show_the_first_whole_objects_of_their_class(root: Path) -> None:
    """Searched here scene by scene, without rounds and workers."""
    wanted, index = crop_counts(9), 0
    found = dict.fromkeys(CROP_CLASSES, 0)
    while found != wanted:
        scene = render_scene(3, index, CROP_SCENE, "imagenet/train")
        index += 1
        for name in CROP_CLASSES:
            boxes = [box for box in scene.boxes if box.category == name.replace("_", " ")]
            boxes = [box for box in boxes if not (box.occluded or box.truncated)]
            longest = [max(box.x2 - box.x1, box.y2 - box.y1) + 1 for box in boxes]
            if found[name] == wanted[name] or not boxes or max(longest) < 24:
                continue
            left, top, side = crop_box(boxes[longest.index(max(longest))], CROP_SCENE)
            painted = scene.image[top : top + side, left : left + side]
            if side > 128:
                painted = cv2.resize(painted, (128, 128), interpolation=cv2.INTER_AREA)
            image = cv2.imread(str(root / f"imagenet/train/{name}/{name}_{found[name]:05d}.JPEG"))
            assert close(image, painted), name
            found[name] += 1


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        (Box("car", 100, 50, 139, 69), (94, 34, 52)),  # in the middle: 1.3 times the longer side
        (Box("car", 0, 0, 39, 19), (0, 0, 52)),  # moved into the image
        (Box("car", 260, 100, 299, 119), (248, 68, 52)),
        (Box("bus", 40, 10, 239, 109), (80, 0, 120)),  # no longer than the image is high
    ],
)
def test_crop_box_by_hand(box: Box, expected: tuple[int, int, int]) -> None:
    assert crop_box(box, (300, 120)) == expected


@pytest.mark.parametrize(("split", "count"), [("train", 9), ("val", 8)])
def test_coco_json(root: Path, split: str, count: int) -> None:
    dataset = DATASETS.build(
        dict(
            _scope_="mmdet",
            type="CocoDataset",
            data_root=str(root / "coco"),
            ann_file=f"annotations/instances_{split}2017.json",
            data_prefix=dict(img=f"{split}2017/"),
            metainfo=dict(classes=DET_CATEGORIES),
            test_mode=True,
            pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations", with_bbox=True, with_mask=True)],
        )
    )
    assert len(dataset) == count
    for index in range(count):
        item, scene = dataset[index], render_scene(3, index, SIZE, f"coco/{split}")
        assert close(item["img"], scene.image)
        assert (item["width"], item["height"]) == SIZE
        boxes = item["gt_bboxes"].tensor.numpy()
        np.testing.assert_array_equal(
            boxes, np.array([[b.x1, b.y1, b.x2 + 1, b.y2 + 1] for b in scene.boxes]).reshape(-1, 4)
        )
        assert item["gt_bboxes_labels"].tolist() == [DET_CATEGORIES.index(b.category) for b in scene.boxes]
        masks = item["gt_masks"].masks
        for mask, box in zip(masks, scene.boxes, strict=True):
            np.testing.assert_array_equal(mask, scene.instances == box.instance)
        assert not item["gt_ignore_flags"].any()


def test_coco_json_by_itself(root: Path) -> None:
    content = json.loads((root / "coco/annotations/instances_train2017.json").read_text())
    assert content["categories"] == [dict(id=n + 1, name=name) for n, name in enumerate(DET_CATEGORIES)]
    assert [image["file_name"] for image in content["images"]][:2] == ["000000000001.jpg", "000000000002.jpg"]
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for entry in content["annotations"]:
        assert entry["area"] == coco_mask.area(entry["segmentation"]) and entry["iscrowd"] == 0
        assert coco_mask.toBbox(entry["segmentation"]).tolist() == entry["bbox"]


@pytest.mark.parametrize(
    ("kind", "meta"), [("BaseSegDataset", METAINFO["tasks"]["sem_seg"]), ("ADE20KDataset", None)], ids=str
)
@pytest.mark.parametrize(("split", "folder", "count"), [("train", "training", 9), ("val", "validation", 8)])
def test_ade20k_maps(root: Path, kind: str, meta: dict | None, split: str, folder: str, count: int) -> None:
    dataset = DATASETS.build(
        dict(
            _scope_="mmseg",
            type=kind,
            data_root=str(root / "ade20k"),
            data_prefix=dict(img_path=f"images/{folder}", seg_map_path=f"annotations/{folder}"),
            reduce_zero_label=True,
            metainfo=meta,
            pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations")],
        )
    )
    assert len(dataset) == count
    for index in range(count):
        item, scene = dataset[index], render_scene(3, index, SIZE, f"ade20k/{split}")
        assert close(item["img"], scene.image)
        np.testing.assert_array_equal(item["gt_seg_map"], scene.sem_seg)


def test_the_workers_do_not_change_a_byte_and_a_lost_file_comes_back(root: Path, tmp_path: Path) -> None:
    before = files(root)
    assert not write_heterogeneous(root, **CALL)  # type: ignore[arg-type]
    assert write_heterogeneous(tmp_path / "again", **CALL, workers=1)  # type: ignore[arg-type]
    assert files(tmp_path / "again") == before
    (root / "imagenet/val/bus/bus_00000.JPEG").unlink()
    assert write_heterogeneous(root, **CALL)  # type: ignore[arg-type]
    assert files(root) == before
    with pytest.raises(MTAdaptError, match="was written with seed 3 instead of 4: add --overwrite to replace it"):
        write_heterogeneous(root, **(CALL | dict(seed=4)))  # type: ignore[arg-type]
    assert files(root) == before


def test_the_folder_of_another_layout_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "synthetic.json").write_text("{}")
    with pytest.raises(MTAdaptError, match=r"is not empty and has no synthetic_heterogeneous.json, name an empty"):
        write_heterogeneous(tmp_path, 8, 8, SIZE, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["synthetic.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 7}, "train is 7, it must be 8 or more: one image of each class"),
        ({"val": 0}, "val is 0, it must be 8 or more"),
        ({"size": (64, 48)}, "size is 64x48, it must lie between 128x96 and"),
        ({"seed": -1}, "seed is -1, it must be 0 or more"),
        ({"workers": 0}, "workers is 0, it must be 1 or more"),
    ],
)
def test_bad_options(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(MTAdaptError, match=message):
        write_heterogeneous(tmp_path / "out", **(CALL | change))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_command_writes_the_datasets_and_overwrites_them(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main = runpy.run_path(str(TOOL))["main"]
    arguments = [str(tmp_path), "--train", "9", "--val", "8", "--size", "128x96", "--workers", "2"]
    main(arguments)
    assert capsys.readouterr().out.startswith(f"{tmp_path}: 3 x 9 train and 8 val images in ")
    main(arguments)
    assert capsys.readouterr().out == f"{tmp_path}: up to date\n"
    main([*arguments, "--train", "8", "--overwrite"])
    assert len(files(tmp_path)) == 16 * 4 + 3, "nothing is left of the old files"
    assert len(json.loads((tmp_path / "coco/annotations/instances_train2017.json").read_text())["images"]) == 8
    with pytest.raises(MTAdaptError, match="--size is '128by96', write it as WIDTHxHEIGHT"):
        main([str(tmp_path / "out"), "--size", "128by96"])
