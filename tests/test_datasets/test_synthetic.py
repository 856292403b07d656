"""Painted scenes: their labels against their own maps, hand-built scenes, and the files."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtadapt.datasets.bdd100k_writer import (
    DET_CATEGORIES,
    LIGHT_COLORS,
    SCENES,
    TIMES_OF_DAY,
    WEATHERS,
    Box,
    FrameAttributes,
    frame_of,
)
from mtadapt.datasets.synthetic import Scene, render_scene, write_bdd100k
from mtadapt.datasets.synthetic.backdrop import Backdrop
from mtadapt.datasets.synthetic.camera import Camera, View
from mtadapt.datasets.synthetic.compose import Description
from mtadapt.datasets.synthetic.light import make_light
from mtadapt.datasets.synthetic.people import Pedestrian
from mtadapt.datasets.synthetic.render import render
from mtadapt.datasets.synthetic.road import GroundColors, RoadLayout
from mtadapt.datasets.synthetic.solid import Pose
from mtadapt.datasets.synthetic.thing import Thing, painting_order
from mtadapt.datasets.synthetic.two_wheelers import TwoWheeler
from mtadapt.datasets.synthetic.vehicles import make_bus, make_car
from mtadapt.datasets.synthetic.writer import has_sem_seg, stem_of
from mtadapt.errors import MTAdaptError

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools/dataset_converters/synthetic_bdd100k.py"
SIZE = (320, 192)


def describe(things: list[Thing], road: RoadLayout | None = None) -> Description:
    """An empty straight road by day with ``things`` on it, seen by a level camera."""
    rng = np.random.default_rng(0)
    light = make_light(rng, FrameAttributes("overcast", "daytime", "city street"))
    return Description(
        view=View(height=1.5, focal=1.0),
        light=light,
        road=road or RoadLayout(lanes=3, own_lane=1, opposite=0),
        colors=GroundColors.random(rng, snow=False, wet=False),
        backdrop=Backdrop.random(rng, "residential"),
        things=things,
        noise_seed=1,
    )


def car(x: float, z: float) -> Thing:
    return make_car(np.random.default_rng(7), Pose(x, z), lamps=False, style="sedan")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(3, index, (208, 128)) for index in range(60)]


def test_same_arguments_same_bytes_and_other_arguments_others() -> None:
    first, again = render_scene(5, 2, SIZE), render_scene(5, 2, SIZE)
    for name in ("image", "sem_seg", "drivable", "instances"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    assert first.boxes == again.boxes and first.attributes == again.attributes
    for other in (render_scene(6, 2, SIZE), render_scene(5, 3, SIZE), render_scene(5, 2, SIZE, split="val")):
        assert not np.array_equal(first.sem_seg, other.sem_seg)


@pytest.mark.parametrize("size", [(128, 96), (321, 193), (1280, 720)])
def test_a_scene_does_not_depend_on_its_size(size: tuple[int, int]) -> None:
    scene, reference = render_scene(0, 1, size), render_scene(0, 1, SIZE)
    assert scene.image.shape == (size[1], size[0], 3) and scene.image.dtype == np.uint8
    assert scene.sem_seg.shape == scene.drivable.shape == (size[1], size[0])
    assert scene.attributes == reference.attributes
    road = [(each.sem_seg[-each.sem_seg.shape[0] // 5 :] == 0).mean() for each in (scene, reference)]
    assert road[0] == pytest.approx(road[1], abs=0.08)


def test_boxes_are_the_inclusive_extents_of_their_instances(scenes: list[Scene]) -> None:
    checked = 0
    for scene in scenes:
        assert set(np.unique(scene.instances)) - {0} == {box.instance for box in scene.boxes}
        for box in scene.boxes:
            rows, columns = np.nonzero(scene.instances == box.instance)
            assert (box.x1, box.y1, box.x2, box.y2) == (columns.min(), rows.min(), columns.max(), rows.max())
            checked += 1
    assert checked > 300


def test_classes_of_boxes_and_of_the_semantic_map_agree(scenes: list[Scene]) -> None:
    train_ids = {"traffic light": 6, "traffic sign": 7, "pedestrian": 11, "rider": 12, "car": 13, "truck": 14,
                 "bus": 15, "train": 16, "motorcycle": 17, "bicycle": 18}  # fmt: skip
    for scene in scenes:
        for box in scene.boxes:
            assert set(np.unique(scene.sem_seg[scene.instances == box.instance])) == {train_ids[box.category]}


def test_drivable_area_is_road_and_free_of_objects(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert set(np.unique(scene.drivable)) <= {0, 1, 2}
        assert np.all(scene.sem_seg[scene.drivable < 2] == 0)
        assert np.all(scene.drivable[scene.instances > 0] == 2)


def test_sixty_scenes_show_every_class(scenes: list[Scene]) -> None:
    assert {box.category for scene in scenes for box in scene.boxes} == set(DET_CATEGORIES)
    assert {int(value) for scene in scenes for value in np.unique(scene.sem_seg)} == {*range(19), 255}
    assert {int(value) for scene in scenes for value in np.unique(scene.drivable)} == {0, 1, 2}
    assert {box.light_color for scene in scenes for box in scene.boxes} == set(LIGHT_COLORS)
    assert any(not scene.boxes for scene in scenes) or any(len(scene.boxes) < 4 for scene in scenes)


def test_attributes_are_those_of_bdd100k(scenes: list[Scene]) -> None:
    assert {scene.attributes.weather for scene in scenes} <= set(WEATHERS)
    assert {scene.attributes.timeofday for scene in scenes} == set(TIMES_OF_DAY) - {"undefined"}
    assert {scene.attributes.scene for scene in scenes} >= {"city street", "residential", "highway"}
    assert {scene.attributes.scene for scene in scenes} <= set(SCENES)


def test_night_is_darker_than_day(scenes: list[Scene]) -> None:
    light = {
        time: np.mean([s.image.mean() for s in scenes if s.attributes.timeofday == time]) for time in TIMES_OF_DAY[:2]
    }
    assert light["night"] < 0.7 * light["daytime"]


def test_colour_alone_does_not_tell_the_class(scenes: list[Scene]) -> None:
    """A table from colour to class, learnt on one half of the scenes, is wrong on much of the other half."""
    counts = np.zeros((16**3, 256), np.int64)

    def cells(scene: Scene) -> np.ndarray:
        return (scene.image.astype(np.int64) // 16) @ np.array([256, 16, 1])

    for scene in scenes[:30]:
        np.add.at(counts, (cells(scene).ravel(), scene.sem_seg.ravel()), 1)
    table = counts.argmax(axis=1)
    right = np.mean([(table[cells(scene)] == scene.sem_seg).mean() for scene in scenes[30:]])
    assert 0.2 < right < 0.75


def test_camera_projects_as_a_pinhole() -> None:
    camera = Camera(View(height=1.5, focal=1.0), 320, 192)
    pixels, depth = camera.polygon(np.array([[0.0, 0, 10], [2, 0, 10], [0, 1.5, 10]])) or (np.empty(0), 0.0)
    np.testing.assert_allclose(pixels, [[160, 96 + 320 * 0.15], [160 + 320 * 0.2, 96 + 320 * 0.15], [160, 96]])
    assert depth == pytest.approx(10)
    assert camera.polygon(np.array([[0.0, 0, -3], [1, 0, -3], [0, 1, -3]])) is None
    x, z, distance = camera.ground()
    row, column = 96 + 40, 160 + 64
    assert z[row, column] == pytest.approx(1.5 * 320 / 40.5, rel=1e-4)
    assert x[row, column] == pytest.approx(z[row, column] * 64.5 / 320, rel=1e-4)
    assert np.isinf(distance[:95]).all()


def test_lanes_lie_where_the_camera_puts_them() -> None:
    scene = render(describe([]), SIZE)
    row = 150  # the ground 1.5 * 320 / 54.5 metres ahead, and one lane there:
    width = 3.5 * 54.5 / 1.5
    direct, other = np.flatnonzero(scene.drivable[row] == 0), np.flatnonzero(scene.drivable[row] == 1)
    assert direct[0] == pytest.approx(160 - width / 2, abs=1.5)
    assert direct[-1] + 1 == pytest.approx(160 + width / 2, abs=1.5)
    assert other[0] == 0 and other[-1] == 319  # three lanes are wider than the image
    assert np.all(scene.drivable[:96] == 2)
    assert scene.boxes == []


def test_a_near_car_hides_a_far_one() -> None:
    near, far = car(0.0, 12.0), car(1.6, 22.0)
    both = render(describe([far, near]), SIZE)
    swapped = render(describe([near, far]), SIZE)
    alone_near, alone_far = render(describe([near]), SIZE), render(describe([far]), SIZE)
    near_mask, far_mask = alone_near.instances > 0, alone_far.instances > 0
    hidden = near_mask & far_mask
    assert hidden.sum() > 50
    by_size = sorted(both.boxes, key=lambda box: (box.x2 - box.x1) * (box.y2 - box.y1))
    np.testing.assert_array_equal(both.instances == by_size[1].instance, near_mask)
    np.testing.assert_array_equal(both.instances == by_size[0].instance, far_mask & ~near_mask)
    assert (by_size[0].occluded, by_size[1].occluded) == (True, False)
    assert by_size[0].x1 > alone_far.boxes[0].x1 and by_size[0].x2 == alone_far.boxes[0].x2
    assert not alone_far.boxes[0].occluded
    np.testing.assert_array_equal(both.instances > 0, swapped.instances > 0)
    assert np.all(both.drivable[near_mask | far_mask] == 2)


def test_a_hidden_car_has_no_box() -> None:
    bus = make_bus(np.random.default_rng(1), Pose(0.0, 16.0), lamps=False)
    scene = render(describe([bus, car(0.0, 40.0)]), SIZE)
    assert [box.category for box in scene.boxes] == ["bus"]


def test_a_car_at_the_edge_is_truncated() -> None:
    scene = render(describe([car(-4.6, 9.0), car(0.0, 20.0)]), SIZE)
    assert [(box.truncated, box.x1 == 0) for box in sorted(scene.boxes, key=lambda box: box.x1)] == [
        (True, True),
        (False, False),
    ]


@pytest.mark.parametrize("yaw", [0.0, np.pi / 2, np.pi])
def test_a_rider_and_the_vehicle_are_two_boxes(yaw: float) -> None:
    rng = np.random.default_rng(0)
    scene = render(describe([TwoWheeler(rng, Pose(0.0, 9.0, yaw), motorcycle=False)]), SIZE)
    boxes = {box.category: box for box in scene.boxes}
    assert set(boxes) == {"bicycle", "rider"}
    assert boxes["rider"].y1 < boxes["bicycle"].y1 and boxes["rider"].y2 <= boxes["bicycle"].y2


def test_a_person_has_the_height_of_a_person() -> None:
    person = Pedestrian(np.random.default_rng(3), Pose(0.0, 8.0))
    (box,) = render(describe([person]), SIZE).boxes
    assert box.y2 - box.y1 + 1 == pytest.approx(person.height * 320 / 8.0, rel=0.08)


def test_things_beside_a_long_one_are_painted_in_the_right_order() -> None:
    rng = np.random.default_rng(0)
    bus = make_bus(rng, Pose(3.5, 16.0), lamps=False)  # from about 10 to 22 metres
    beyond, before = Pedestrian(rng, Pose(7.0, 14.0)), Pedestrian(rng, Pose(1.5, 18.0))
    things = [before, bus, beyond]
    assert [things[number] for number in painting_order(things)] == [beyond, bus, before]


def test_more_workers_and_more_images_give_the_same_bytes(tmp_path: Path) -> None:
    write_bdd100k(tmp_path / "a", 5, 1, (128, 96), seed=2, workers=1)
    write_bdd100k(tmp_path / "b", 7, 1, (128, 96), seed=2, workers=2)
    files = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*") if path.suffix != ".json"}
    assert len(files) == 6 * 4
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    few, many = (json.loads((tmp_path / name / "labels/det_20/det_train.json").read_text()) for name in "ab")
    assert few == many[:5]


def test_layout(tmp_path: Path) -> None:
    assert write_bdd100k(tmp_path, 4, 2, (160, 96), seed=1, sem_seg_fraction=0.5, workers=1)
    frames = json.loads((tmp_path / "labels/det_20/det_train.json").read_text())
    stems = [stem_of(1, "train", index) for index in range(4)]
    assert [frame["name"] for frame in frames] == [f"{stem}.jpg" for stem in stems]
    scene = render_scene(1, 0, (160, 96), "train")
    assert frames[0] == frame_of(f"{stems[0]}.jpg", scene.boxes, scene.attributes)
    for folder, ending, indices in (
        ("images/100k", "jpg", (0, 1, 2, 3)),
        ("labels/drivable/masks", "png", (0, 1, 2, 3)),
        ("images/10k", "jpg", (1, 3)),
        ("labels/sem_seg/masks", "png", (1, 3)),
    ):
        names = {path.name for path in (tmp_path / folder / "train").iterdir()}
        assert names == {f"{stems[index]}.{ending}" for index in indices}
    drivable = cv2.imread(str(tmp_path / "labels/drivable/masks/train" / f"{stems[0]}.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(drivable, scene.drivable)
    sem_seg = cv2.imread(str(tmp_path / "labels/sem_seg/masks/train" / f"{stems[1]}.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(sem_seg, render_scene(1, 1, (160, 96), "train").sem_seg)
    image = cv2.imread(str(tmp_path / "images/100k/train" / f"{stems[0]}.jpg"))
    assert np.abs(image.astype(int) - scene.image).mean() < 6


def test_a_second_call_leaves_the_files_alone_and_a_lost_file_comes_back(tmp_path: Path) -> None:
    call = dict(train=2, val=1, size=(128, 96), seed=4, workers=1)
    assert write_bdd100k(tmp_path, **call)  # type: ignore[arg-type]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    assert not write_bdd100k(tmp_path, **call)  # type: ignore[arg-type]
    next(iter(tmp_path.glob("labels/sem_seg/masks/train/*.png"))).unlink()
    assert write_bdd100k(tmp_path, **call)  # type: ignore[arg-type]
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    with pytest.raises(MTAdaptError, match="seed 4 instead of 5: add --overwrite"):
        write_bdd100k(tmp_path, **(call | {"seed": 5}))  # type: ignore[arg-type]
    assert write_bdd100k(tmp_path, **(call | {"train": 1}), overwrite=True)  # type: ignore[arg-type]
    assert len(list(tmp_path.glob("images/100k/train/*"))) == 1


def test_someone_elses_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(MTAdaptError, match=r"is not empty and has no synthetic.json, name an empty folder"):
        write_bdd100k(tmp_path, 1, 1, (128, 96), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.1, 10), (0.3, 30), (1 / 3, 33), (1.0, 100)])
def test_the_fraction_is_exact(fraction: float, expected: int) -> None:
    assert sum(has_sem_seg(index, fraction) for index in range(100)) == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": (64, 48)}, "size is 64x48, it must lie between 128x96 and"),
        ({"train": -1}, "train is -1, it must be a number of images from 0"),
        ({"train": 0, "val": 0}, "train and val are both 0"),
        ({"seed": -3}, "seed is -3, it must be 0 or more"),
        ({"sem_seg_fraction": 1.5}, "sem_seg_fraction is 1.5, it must lie between 0 and 1"),
        ({"workers": 0}, "workers is 0, it must be 1 or more"),
    ],
)
def test_bad_options(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(MTAdaptError, match=message):
        write_bdd100k(tmp_path / "out", **({"train": 1, "val": 1, "size": (128, 96)} | change))
    assert not (tmp_path / "out").exists()


def test_an_unknown_attribute_is_an_error() -> None:
    with pytest.raises(MTAdaptError, match=r"a.jpg: weather is 'hail', BDD100K knows rainy"):
        frame_of("a.jpg", [], FrameAttributes(weather="hail"))
    with pytest.raises(MTAdaptError, match=r"a.jpg: category is 'person', BDD100K knows pedestrian"):
        frame_of("a.jpg", [replace(Box("person", 0, 0, 1, 1))], FrameAttributes())
    assert frame_of("a.jpg", [], FrameAttributes())["labels"] is None


def test_the_command_writes_a_dataset(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main = runpy.run_path(str(TOOL))["main"]
    arguments = [str(tmp_path), "--train", "2", "--val", "1", "--size", "128x96", "--workers", "1"]
    main(arguments)
    assert capsys.readouterr().out.startswith(f"{tmp_path}: 2 train and 1 val images in ")
    assert len(list((tmp_path / "images/10k/train").iterdir())) == 2
    main(arguments)
    assert capsys.readouterr().out == f"{tmp_path}: up to date\n"


def test_the_command_ends_with_one_line_for_a_bad_size(tmp_path: Path) -> None:
    command = [sys.executable, str(TOOL), str(tmp_path / "out"), "--size", "64x48"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, timeout=120)
    assert done.returncode == 2
    assert done.stderr == "error: size is 64x48, it must lie between 128x96 and 1920x1200 (width x height)\n"
    with pytest.raises(MTAdaptError, match=r"--size is '128by96', write it as WIDTHxHEIGHT in pixels, e.g. 640x360"):
        runpy.run_path(str(TOOL))["main"]([str(tmp_path / "out"), "--size", "128by96"])
    assert not (tmp_path / "out").exists()
