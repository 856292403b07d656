"""BDD100KDataset against a folder whose every label is written by hand."""

from __future__ import annotations

import logging
import pickle

import numpy as np
import pytest
import torch

from mtadapt.datasets import BDD100KDataset
from mtadapt.errors import MTAdaptError
from tests.conftest import Tree, box

TRAIN = [
    dict(type="LoadImage"),
    dict(type="LoadMultiTaskAnnotations"),
    dict(type="PackMultiTaskInputs"),
]


def build(tree: Tree, **kwargs) -> BDD100KDataset:
    return BDD100KDataset(data_root=str(tree.root), **{"pipeline": TRAIN, **kwargs})


def by_stem(dataset: BDD100KDataset) -> dict[str, dict]:
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return {info["img_path"].rsplit("/", 1)[1][:-4]: info for info in infos}


def test_images_and_labels_are_matched_by_stem(bdd: Tree):
    infos = by_stem(build(bdd))
    assert {stem: info["labelled_tasks"] for stem, info in infos.items()} == {
        "a": ("det", "drivable"),
        "b": ("det", "sem_seg", "drivable"),
        "c": ("drivable",),
        "d": ("sem_seg",),
    }
    assert "/100k/" in infos["b"]["img_path"] and "/10k/" in infos["d"]["img_path"]


def test_boxes_are_inclusive_and_categories_mapped(bdd: Tree):
    info = by_stem(build(bdd))["a"]
    np.testing.assert_array_equal(info["boxes"], [[2, 4, 12, 24], [20, 8, 40, 28], [0, 0, 1, 1]])
    assert info["box_labels"].tolist() == [0, 2, 8]
    assert info["box_ignore"].tolist() == [False, True, False]
    assert info["attributes"] == dict(weather="rainy", timeofday="night", scene="highway")


def test_null_labels_are_an_image_without_objects(bdd: Tree):
    assert by_stem(build(bdd))["b"]["boxes"].shape == (0, 4)


def test_summary_line_counts_what_is_left_out(bdd: Tree, caplog: pytest.LogCaptureFixture):
    from mmengine.logging import MMLogger

    logger = MMLogger.get_instance("summary")
    logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        build(bdd)
    (line,) = [record.message for record in caplog.records if record.message.startswith("BDD100K train")]
    assert "4 images (det 2, sem_seg 2, drivable 3; 3 boxes), label setting full" in line
    for part in (
        "1 detection entries without an image",
        "1 drivable masks without an image",
        "1 images without a detection entry",
        "1 train images that are in val",
    ):
        assert part in line


def test_overlap_with_either_val_split_is_dropped(bdd: Tree):
    bdd.image("10k", "val", "a")
    bdd.mask("sem_seg", "val", "a", 1)
    assert set(by_stem(build(bdd))) == {"b", "c", "d"}


def test_one_task_by_its_name(bdd: Tree):
    assert build(bdd, tasks="drivable").tasks == ("drivable",)


def test_a_frame_that_is_there_twice(bdd: Tree):
    bdd.det("train", [dict(name="a.jpg", labels=[box("car", 1, 1, 2, 2)]), dict(name="a.jpg", labels=None)])
    with pytest.raises(MTAdaptError, match=r"det_train.json: frame 'a.jpg' is there twice"):
        build(bdd)


def test_a_task_without_any_labelled_image(bdd: Tree):
    for path in (bdd.root / "labels/drivable/masks/train").iterdir():
        path.rename(path.with_name(path.stem + "_drivable_id.png"))
    with pytest.raises(MTAdaptError, match=r"no train image is labelled for 'drivable'; .* 4 drivable masks without"):
        build(bdd)


def test_overlap_can_be_kept(bdd: Tree):
    assert "v" in by_stem(build(bdd, drop_overlap=False))


def test_val_gives_instances_for_coco(bdd: Tree):
    infos = by_stem(build(bdd, split="val", test_mode=True))
    assert infos["v"]["instances"] == [
        dict(bbox=[10.0, 10.0, 20.0, 30.0], bbox_label=2, ignore_flag=0),
        dict(bbox=[5.0, 5.0, 10.0, 10.0], bbox_label=0, ignore_flag=1),
    ]
    assert infos["w"]["labelled_tasks"] == ("sem_seg",) and "instances" not in infos["w"]


def test_test_split_has_no_labels(bdd: Tree):
    bdd.image("100k", "test", "t")
    dataset = build(bdd, split="test", tasks=("det", "drivable"), test_mode=True)
    assert dataset[0]["data_samples"].labelled_tasks == ()


@pytest.mark.parametrize(
    ("tasks", "stems"), [(("det",), "ab"), (("sem_seg",), "bd"), (("drivable",), "abc"), (("det", "sem_seg"), "abd")]
)
def test_any_subset_of_tasks(bdd: Tree, tasks: tuple[str, ...], stems: str):
    infos = by_stem(build(bdd, tasks=tasks))
    assert set(infos) == set(stems)
    assert all(set(info["labelled_tasks"]) <= set(tasks) for info in infos.values())


def test_sample_holds_native_samples(bdd: Tree):
    dataset = build(bdd)
    index = list(by_stem(dataset)).index("b")
    data = dataset[index]
    sample = data["data_samples"]
    assert data["inputs"].dtype == torch.uint8 and data["inputs"].shape == (3, 48, 64)
    assert sample.tasks == ("det", "drivable", "sem_seg")
    assert len(sample.det.gt_instances) == 0
    assert sample.sem_seg.gt_sem_seg.data.dtype == torch.uint8
    expected = np.tile(np.arange(64) % 3, (48, 1))
    np.testing.assert_array_equal(sample.drivable.gt_sem_seg.data[0], expected)
    np.testing.assert_array_equal(sample.sem_seg.gt_sem_seg.data[0], expected * 6)


def test_ignored_boxes_are_apart(bdd: Tree):
    dataset = build(bdd)
    sample = dataset[list(by_stem(dataset)).index("a")]["data_samples"].det
    assert sample.gt_instances.labels.tolist() == [0, 8]
    assert sample.ignored_instances.labels.tolist() == [2]


def test_index_is_one_buffer_and_survives_pickling(bdd: Tree):
    dataset = build(bdd)
    assert dataset.data_list == [] and dataset.data_bytes.dtype == np.uint8
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(by_stem(copy)["a"]["boxes"], by_stem(dataset)["a"]["boxes"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(tasks=("lane",)), r"unknown tasks \['lane'\]; known: det, drivable, sem_seg"),
        (dict(split="trian"), "unknown split 'trian'"),
        (dict(task="det"), r"unknown settings \['task'\]"),
        (dict(on_error="ignore"), "on_error is 'ignore'"),
        (dict(label_setting="half"), "unknown label_setting 'half'"),
        (dict(label_setting=dict(counts=dict(det=1))), "needs 'name'"),
        (dict(label_setting=dict(name="disjoint_balance", count=3)), "takes 'counts' and 'seed'"),
    ],
)
def test_unknown_options(bdd: Tree, options: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        build(bdd, **options)


def test_missing_folder_is_named_with_its_task(bdd: Tree):
    with pytest.raises(MTAdaptError, match=r"images/100k/test: no such folder, needed by drivable"):
        build(bdd, split="test", tasks=("drivable",))
    (bdd.root / "labels/det_20/det_train.json").unlink()
    with pytest.raises(MTAdaptError, match=r"det_train.json: missing; put the det_20 labels there"):
        build(bdd)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"name": "a.jpg", "labels": [', r"det_train.json: broken JSON .* download the file again"),
        ('[{"labels": []}]', r"det_train.json: Object missing required field `name`"),
        (
            '[{"name": "a.jpg", "labels": [{"category": "car", "box2d": {"x1": "1", "y1": 0, "x2": 2, "y2": 2}}]}]',
            r"frame 'a.jpg': Expected `float`, got `str` - at `\$\[0\].labels\[0\].box2d.x1`",
        ),
        ("{}", "missing required field `frames`"),
    ],
)
def test_broken_json(bdd: Tree, text: str, message: str):
    (bdd.root / "labels/det_20/det_train.json").write_text(text)
    with pytest.raises(MTAdaptError, match=message) as error:
        build(bdd)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (box("tram", 1, 1, 5, 5), "frame 'a.jpg', label 0: unknown category 'tram'; known: pedestrian, rider"),
        (box("car", 9, 1, 5, 5), r"frame 'a.jpg', label 0: impossible box \(9, 1, 5, 5\)"),
        (box("car", float("nan"), 1, 5, 5), "impossible box|invalid"),
    ],
)
def test_bad_labels_raise_or_are_counted(bdd: Tree, label: dict, message: str):
    bdd.det("train", [dict(name="a.jpg", labels=[label, box("car", 1, 1, 2, 2)])])
    with pytest.raises(MTAdaptError, match=message):
        build(bdd)
    if "NaN" not in (bdd.root / "labels/det_20/det_train.json").read_text():
        assert by_stem(build(bdd, on_error="skip"))["a"]["box_labels"].tolist() == [2]


def test_scalabel_document_with_frames(bdd: Tree):
    path = bdd.root / "labels/det_20/det_train.json"
    expected = by_stem(build(bdd))["a"]["boxes"]
    path.write_text('{"frames": ' + path.read_text() + ', "config": null}')
    np.testing.assert_array_equal(by_stem(build(bdd))["a"]["boxes"], expected)


def _truncate(tree: Tree) -> str:
    path = tree.root / "images/100k/train/a.jpg"
    path.write_bytes(path.read_bytes()[:-400])
    return r"images/100k/train/a.jpg: truncated or not an image"


def _empty(tree: Tree) -> str:
    (tree.root / "images/100k/train/a.jpg").write_bytes(b"")
    return r"a.jpg: truncated or not an image"


def _truncate_mask(tree: Tree) -> str:
    path = tree.root / "labels/drivable/masks/train/a.png"
    path.write_bytes(path.read_bytes()[:60])
    return r"drivable/masks/train/a.png: truncated or not an image"


def _wrong_size(tree: Tree) -> str:
    tree.mask("drivable", "train", "a", np.zeros((10, 20), np.uint8))
    return r"a.png: the drivable mask is 20x10, its image .*a.jpg 64x48"


def _wrong_id(tree: Tree) -> str:
    tree.mask("drivable", "train", "a", 3)
    return r"a.png: class id 3 in a drivable mask of 3 classes"


def _colour(tree: Tree) -> str:
    tree.mask("drivable", "train", "a", np.zeros((48, 64, 3), np.uint8))
    return r"a.png: a drivable mask has one channel of class ids, not mode RGB"


def _outside(tree: Tree) -> str:
    tree.det("train", [dict(name="a.jpg", labels=[box("car", 70, 5, 90, 20)])])
    return r"a.jpg: box 0 \[70.0, 5.0, 91.0, 21.0\] lies outside the image of 64x48"


@pytest.mark.parametrize(
    "damage", [_truncate, _empty, _truncate_mask, _wrong_size, _wrong_id, _colour, _outside], ids=lambda f: f.__name__
)
def test_bad_sample_raises_or_is_replaced_and_counted(bdd: Tree, damage):
    message = damage(bdd)
    with pytest.raises(MTAdaptError, match=message) as error:
        build(bdd)[0]
    assert len(str(error.value).splitlines()) == 1
    dataset = build(bdd, on_error="skip")
    assert dataset[0]["data_samples"].img_path.endswith("b.jpg")
    assert dataset.num_skipped == 1


def test_skipped_samples_are_counted_over_workers(bdd: Tree):
    _truncate(bdd)
    dataset = build(bdd, on_error="skip")
    loader = torch.utils.data.DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=lambda batch: batch)
    assert sum(len(batch) for batch in loader) == 4
    assert dataset.num_skipped == 1


def test_palette_png_keeps_its_indices(bdd: Tree):
    from PIL import Image

    path = bdd.root / "labels/drivable/masks/train/a.png"
    image = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) % 3, (48, 1)), mode="P")
    image.putpalette([200, 0, 0, 0, 200, 0, 0, 0, 200])
    image.save(path)
    sample = build(bdd)[0]["data_samples"]
    np.testing.assert_array_equal(sample.drivable.gt_sem_seg.data[0, 0, :6], [0, 1, 2, 0, 1, 2])
