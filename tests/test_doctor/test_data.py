"""Folders of data: what is recognised, what is counted, and each fault with the file that has it."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtadapt.doctor import Finding
from mtadapt.doctor.data import examine_data
from mtadapt.doctor.data.files import SAMPLE, choose
from mtadapt.doctor.examination import _examine_data
from tests import public_layouts
from tests.conftest import Tree, box


def shown(findings: list[Finding]) -> dict[tuple[str, str], list[str]]:
    """Details by name and status."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in findings:
        found.setdefault((one.name, one.status), []).append(one.detail)
    return found


def problems(root: Path) -> list[Finding]:
    return [one for one in examine_data(root) if one.status == "problem"]


def only_problem(root: Path) -> Finding:
    (found,) = problems(root)
    return found


# BDD100K


def test_bdd100k_counts(bdd: Tree) -> None:
    found = shown(examine_data(bdd.root))
    assert found[str(bdd.root), "ok"] == ["layout of BDD100K"]
    assert found["train images", "ok"] == ["3 in 100k, 3 in 10k; 1 are also in val and are left out of training"]
    assert found["train det", "ok"] == ["3 images with 4 boxes; 1 of 3 images have no entry and are left out of det"]
    assert found["train det", "warning"] == ["1 of 3 entries have no image; first: gone"]
    assert found["train drivable", "ok"] == ["4 masks"]
    assert found["train drivable", "warning"] == ["1 of 4 masks have no image; first: nobody.png"]
    assert found["val sem_seg", "ok"] == ["1 masks"]
    assert found["val files", "ok"] == ["2 of 2 images with their labels read, all in order"]


def clean(bdd: Tree) -> Tree:
    """The folder without the box of no size, which lies in a corner."""
    assert problems(bdd.root) == []
    return bdd


def test_bdd100k_missing_masks(bdd: Tree) -> None:
    (clean(bdd).root / "labels/drivable/masks/train/a.png").unlink()
    found = shown(examine_data(bdd.root))
    assert "1 of 3 images have no mask; first: a.jpg" in found["train drivable", "warning"]


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        (lambda tree: tree.mask("drivable", "val", "v", np.zeros((24, 32), np.uint8)), "mask is 32x24, its image"),
        (lambda tree: tree.mask("sem_seg", "val", "w", 77), "class id 77 in a sem_seg mask of 19 classes"),
        (lambda tree: tree.mask("drivable", "val", "v", np.ones((48, 64, 3), np.uint8) * 9), "not mode RGB"),
        (
            lambda tree: (tree.root / "images/100k/val/v.jpg").write_bytes(b"no image"),
            "v.jpg: truncated or not an image",
        ),
        (
            lambda tree: tree.det("val", [dict(name="v.jpg", labels=[box("car", 70, 3, 90, 9)])]),
            "v.jpg: box [70.0, 3.0, 91.0, 10.0] lies outside the image of 64x48",
        ),
    ],
    ids=["size", "class id", "coloured", "unreadable", "outside"],
)
def test_bdd100k_faults_of_one_file(bdd: Tree, fault, detail: str) -> None:
    fault(clean(bdd))
    found = only_problem(bdd.root)
    assert found.name == "val files" and detail in found.detail and found.remedy
    assert found.detail.startswith("1 of 2 images with their labels read cannot be used; first: ")


def test_bdd100k_faults_of_several_kinds(bdd: Tree) -> None:
    """Each kind with its own remedy and its own count."""
    train = clean(bdd).root / "images/100k/train"
    (train / "a.jpg").write_bytes(b"no image")
    (train / "c.jpg").write_bytes(b"nor this")
    bdd.mask("sem_seg", "train", "d", 33)
    small = bdd.mask("sem_seg", "train", "b", np.zeros((5, 5), np.uint8))
    found = problems(bdd.root)
    assert [one.name for one in found] == ["train files"] * 3
    head = "of 6 images with their labels read cannot be used; first: "
    assert found[0].detail.startswith(f"2 {head}{train}/a.jpg: truncated or not an image")
    assert "copy the file again" in found[0].remedy
    assert found[1].detail.startswith(f"1 {head}{small}: the sem_seg mask is 5x5, its image")
    assert found[1].remedy == "both must be of one size"
    assert found[2].detail.startswith(f"1 {head}") and "class id 33 in a sem_seg mask of 19" in found[2].detail
    assert found[2].remedy == "use the train-id masks"


def test_bdd100k_truncated_image(bdd: Tree) -> None:
    path = clean(bdd).root / "images/10k/val/w.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    assert str(path) in only_problem(bdd.root).detail


def test_bdd100k_unknown_category(bdd: Tree) -> None:
    labels = [box("car", 1, 1, 5, 5), box("tram", 2, 2, 9, 9), box("tram", 2, 2, 9, 9)]
    clean(bdd).det("val", [dict(name="v.jpg", labels=labels)])
    found = only_problem(bdd.root)
    assert found.name == "val det"
    assert found.detail.startswith("2 labels cannot be used; first: ")
    assert "frame 'v.jpg', label 1: unknown category 'tram'" in found.detail
    assert shown(examine_data(bdd.root))["val det", "ok"] == ["1 images with 1 boxes"]


def test_bdd100k_broken_json(bdd: Tree) -> None:
    (clean(bdd).root / "labels/det_20/det_val.json").write_text('[{"name": "v.jpg"')
    found = only_problem(bdd.root)
    assert "det_val.json: broken JSON" in found.detail and "download the file again" in found.remedy


def test_bdd100k_a_task_without_labels(bdd: Tree) -> None:
    """In one split it is a mistake; in all of them a choice, as long as another task is left."""
    shutil.rmtree(clean(bdd).root / "labels/sem_seg/masks/val")
    assert only_problem(bdd.root).name == "val sem_seg"
    shutil.rmtree(bdd.root / "labels/sem_seg")
    assert problems(bdd.root) == []
    assert "leave 'sem_seg' out of tasks" in next(
        one.remedy for one in examine_data(bdd.root) if one.name == "val sem_seg"
    )
    shutil.rmtree(bdd.root / "labels")
    assert only_problem(bdd.root).name == "labels"


def test_bdd100k_without_images(bdd: Tree) -> None:
    shutil.rmtree(clean(bdd).root / "images")
    assert [one.name for one in problems(bdd.root)] == ["train", "val"]


# COCO


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    public_layouts.write_coco(tmp_path / "coco", images=3)
    assert problems(tmp_path / "coco") == []
    return tmp_path / "coco"


def change(root: Path, split: str, **entries: object) -> dict:
    path = root / f"annotations/instances_{split}2017.json"
    document = json.loads(path.read_text())
    document.update(entries)
    path.write_text(json.dumps(document))
    return document


def test_coco_counts(coco: Path) -> None:
    found = shown(examine_data(coco))
    assert found[str(coco), "ok"] == ["layout of COCO"]
    assert found["train2017 det", "ok"] == ["3 images, 3 of them with 9 boxes of 80 categories"]
    assert found["val2017 files", "ok"] == ["3 of 3 images read, all in order"]


def test_coco_missing_images(coco: Path) -> None:
    (coco / "val2017/000000000010.jpg").unlink()
    found = shown(examine_data(coco))
    assert found["val2017 images", "warning"] == ["1 of 3 images are not there; first: 000000000010.jpg"]
    (coco / "images").mkdir()
    shutil.move(coco / "val2017", coco / "images")
    found = only_problem(coco)
    assert found.remedy == f"mv {coco}/images/val2017 {coco}/val2017"


def test_coco_image_of_another_size(coco: Path) -> None:
    assert cv2.imwrite(str(coco / "train2017/000000000009.jpg"), np.zeros((20, 30, 3), np.uint8))
    assert "000000000009.jpg: is 30x20, in instances_train2017.json 64x48" in only_problem(coco).detail


def test_coco_categories(coco: Path) -> None:
    document = change(coco, "val")
    document["categories"][0]["name"] = "human"
    change(coco, "val", categories=document["categories"])
    found = only_problem(coco)
    assert found.detail == "the categories of val2017 are not those of train2017: human, person differ"
    change(coco, "val", categories=document["categories"][:5])
    assert "category_id 90" in only_problem(coco).detail


def test_coco_boxes_without_area_and_no_annotations(coco: Path) -> None:
    document = change(coco, "train")
    document["annotations"][1]["bbox"][2] = 0
    change(coco, "train", annotations=document["annotations"])
    found = shown(examine_data(coco))
    assert found["train2017 det", "warning"][0].startswith("1 boxes have no area and are left out; first: ")
    shutil.rmtree(coco / "annotations")
    assert "unpack annotations_trainval2017.zip" in only_problem(coco).remedy


def test_coco_sizes_that_are_no_numbers(coco: Path) -> None:
    document = change(coco, "train")
    document["images"][0]["width"] = "wide"
    change(coco, "train", images=document["images"])
    found = only_problem(coco)
    assert "instances_train2017.json: Expected `float | null`, got `str`" in found.detail


# ADE20K


@pytest.fixture
def ade(tmp_path: Path) -> Path:
    public_layouts.write_ade20k(tmp_path / "ade/ADEChallengeData2016", images=3)
    assert problems(tmp_path / "ade") == []
    return tmp_path / "ade/ADEChallengeData2016"


def test_ade20k(ade: Path) -> None:
    for root in (ade, ade.parent):
        found = shown(examine_data(root))
        assert found[str(root), "ok"] == ["layout of ADE20K"]
        assert found["training sem_seg", "ok"] == ["3 images, 3 masks"]
    (ade / "annotations/training/ADE_train_00000002.png").unlink()
    found = shown(examine_data(ade))
    assert found["training sem_seg", "warning"] == ["1 of 3 images have no mask; first: ADE_train_00000002.jpg"]


def test_ade20k_faults(ade: Path) -> None:
    path = ade / "annotations/validation/ADE_val_00000003.png"
    assert cv2.imwrite(str(path), np.full((48, 64), 151, np.uint8))
    assert f"{path}: class id 151" in only_problem(ade).detail
    shutil.rmtree(ade / "annotations/validation")
    assert only_problem(ade).detail == f"{ade}/annotations/validation: missing or empty"


# ImageNet


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    public_layouts.write_imagenet(tmp_path / "imagenet", images=3)
    assert problems(tmp_path / "imagenet") == []
    return tmp_path / "imagenet"


def test_imagenet(imagenet: Path) -> None:
    found = shown(examine_data(imagenet))
    assert found[str(imagenet), "ok"] == ["layout of ImageNet"]
    assert found["train cls", "ok"] == ["3 images in 1,000 class folders"]
    assert found["train cls", "warning"] == ["997 of 1,000 class folders are empty; first: n01440767"]
    (imagenet / "val/n01440767").rmdir()
    names = [(one.name, one.status) for one in examine_data(imagenet) if one.status != "ok"]
    assert ("val cls", "warning") in names and ("classes", "problem") in names


def test_imagenet_with_a_flat_val(imagenet: Path) -> None:
    (image, *_) = (imagenet / "val").rglob("*.JPEG")
    data = image.read_bytes()
    shutil.rmtree(imagenet / "val")
    (imagenet / "val").mkdir()
    (imagenet / "val/ILSVRC2012_val_00000001.JPEG").write_bytes(data)
    assert "1 images without class folders" in only_problem(imagenet).detail
    (imagenet / "meta").mkdir()
    (imagenet / "meta/val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\n")
    assert problems(imagenet) == []


def test_imagenet_unreadable(imagenet: Path) -> None:
    path = imagenet / "train/n01440764/n01440764_1.JPEG"
    path.write_bytes(b"")
    assert f"{path}: " in only_problem(imagenet).detail


def test_other_classes_in_the_layout_of_imagenet(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            assert cv2.imwrite(str(tmp_path / split / name / "1.png"), np.zeros((8, 8, 3), np.uint8))
    assert [one.status for one in examine_data(tmp_path)] == ["ok"] * 5


# Anything else


def test_no_data_set(tmp_path: Path, bdd: Tree) -> None:
    assert only_problem(tmp_path / "nothing").detail == "no such folder"
    assert only_problem(bdd.root / "labels/det_20/det_val.json").detail == "is a file"
    found = only_problem(tmp_path)
    assert found.detail == f"no data set itself, but holds {bdd.root} (BDD100K)"
    (tmp_path / "other/pictures").mkdir(parents=True)
    assert "no known layout: holds pictures; looked for" in only_problem(tmp_path / "other").detail


def test_a_folder_that_cannot_be_read(bdd: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr("mtadapt.doctor.data.files.os.scandir", refuse)
    (found,) = _examine_data(bdd.root, check_all=False, error="")
    assert found.status == "problem" and found.detail.endswith("images/100k/train: cannot be read (Permission denied)")


def test_a_large_folder_is_sampled(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    for split, number in (("train", SAMPLE + 1), ("val", SAMPLE)):
        (tmp_path / split / "cat").mkdir(parents=True)
        for one in range(number):
            assert cv2.imwrite(str(tmp_path / split / "cat" / f"{one:02d}.png"), image)
    assert [one.name for one in examine_data(tmp_path) if one.sampled] == ["train files"]
    assert not any(one.sampled for one in examine_data(tmp_path, check_all=True))
    (tmp_path / "train/cat/00.png").write_bytes(b"no image")
    assert only_problem(tmp_path).sampled


def test_a_sample_is_spread_and_all_is_all() -> None:
    items = list(range(1000))
    chosen = choose(items, check_all=False)
    assert len(set(chosen)) == SAMPLE and chosen[0] == 0 and chosen[-1] == 999
    assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1
    assert choose(items, check_all=True) == items
