"""Labels are numbered, mirrored and read from BDD100K as the documentation says."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from mtadapt.datasets import HeterogeneousDataset, MultiLabelDataset
from mtadapt.datasets.multi_label import LabelVocabulary
from mtadapt.errors import MTAdaptError
from mtadapt.registry import DATASETS
from tests.command_line import ROOT
from tests.conftest import Tree, box

LABELS = dict(
    style=["weather=rainy", "weather=clear", "scene=highway"],
    objects=["pedestrian", "car", "traffic light", "dog"],
    relations=["pedestrian left of car", "car left of pedestrian", "car above car", "dog left of car"],
)
NAMES = tuple(name for names in LABELS.values() for name in names)


def dataset(tree: Tree, labels: dict = LABELS, **settings) -> MultiLabelDataset:
    reader = dict(type="BDD100KLabels", data_root=str(tree.root), **settings.pop("reader", {}))
    return DATASETS.build(dict(type="MultiLabelDataset", labels=labels, reader=reader, pipeline=[], **settings))


def scores(data: MultiLabelDataset) -> dict[str, list[int]]:
    infos = [data.get_data_info(number) for number in range(len(data))]
    return {Path(info["img_path"]).stem: info["gt_score"].astype(int).tolist() for info in infos}


def frame(stem: str, *labels: dict, **attributes: str) -> dict:
    return dict(name=f"{stem}.jpg", attributes=attributes, labels=list(labels))


@pytest.fixture
def tree(tmp_path) -> Tree:
    """Four images, the last of which has no frame."""
    made = Tree(tmp_path / "bdd")
    for stem in ("a", "b", "c", "d"):
        made.image("100k", "train", stem)
    walker, car = box("person", 0, 0, 9, 19), box("car", 20, 0, 39, 19)
    made.det(
        "train",
        [
            frame("b", walker, box("other vehicle", 20, 0, 39, 19), weather="undefined", scene="residential"),
            frame("a", walker, car, weather="rainy", scene="undefined"),
            frame("c", weather="foggy", timeofday="night", scene="highway"),
        ],
    )
    return made


def test_labels_are_numbered_through_the_kinds():
    vocabulary = LabelVocabulary(dict(relations=["a left of b"], style=["x=1", "x=2", "odd"], objects=["b"]))
    assert vocabulary.names == ("x=1", "x=2", "odd", "b", "a left of b") and len(vocabulary) == 5
    assert vocabulary.kinds == dict(style=(0, 3), objects=(3, 4), relations=(4, 5))
    assert vocabulary.groups == dict(x={"1": 0, "2": 1})
    assert LabelVocabulary(dict(objects=["a"])).kinds == dict(objects=(0, 1))


def test_mirror_images_of_labels():
    vocabulary = LabelVocabulary(
        dict(objects=["a"], relations=["a left of b", "b left of a", "a above b", "a left of a", "a left of c"])
    )
    assert vocabulary.mirrored.tolist() == [0, 2, 1, 3, 4, -1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (dict(), "labels: there are none; write dict"),
        (["car"], r"labels=\['car'\]; write dict\(style="),
        (dict(things=["car"]), r"labels=\{'things': \['car'\]\}; write dict"),
        (dict(objects="car"), "objects='car'; write a list of names"),
        (dict(objects=["car "]), "write a list of names without blanks"),
        (dict(objects=["car", "bus", "car"]), "'car' is there twice"),
        (dict(objects=["car"], style=["car"]), "'car' is there twice"),
        (dict(relations=["car near bus"]), "relation 'car near bus'; write '<object> <predicate> <object>'"),
        (dict(relations=["a next to b", "b next to a"]), "'a next to b' and 'b next to a' mean the same"),
    ],
)
def test_broken_labels_are_refused(labels, message: str):
    with pytest.raises(MTAdaptError, match=message):
        LabelVocabulary(labels)


def test_bdd100k_labels(tree: Tree):
    data = dataset(tree)
    assert data.metainfo["classes"] == NAMES
    assert data.metainfo["kinds"] == dict(style=(0, 3), objects=(3, 7), relations=(7, 11))
    assert scores(data) == dict(
        # weather, scene | pedestrian, car, traffic light, dog | relations; nobody labels dogs.
        a=[1, 0, -1, 1, 1, 0, -1, 1, 0, 0, -1],
        b=[-1, -1, 0, 1, -1, 0, -1, -1, -1, -1, -1],  # there may be a car among the other vehicles
        c=[0, 0, 1, 0, 0, 0, -1, 0, 0, 0, -1],  # foggy, so neither rainy nor clear
        d=[-1] * 11,
    )
    info = data.get_data_info(0)
    assert info["img_id"] == 0 and info["labelled_tasks"] == ("mlc",) and info["gt_score"].dtype == np.float32
    assert info["mirrored"].tolist() == [*range(7), 8, 7, 9, -1]


def test_categories_may_have_other_names(tree: Tree):
    labels = dict(objects=["person", "car", "rider"], relations=["person left of car", "rider left of car"])
    tree.det("train", [frame("a", box("rider", 0, 0, 9, 19), box("car", 20, 0, 39, 19)), frame("b")])
    found = scores(dataset(tree, labels, reader=dict(names=dict(pedestrian="person", rider=["person", "rider"]))))
    assert found["a"] == [1, 1, 1, 1, 1] and found["b"] == [0, 0, 0, 0, 0]
    found = scores(dataset(tree, labels, reader=dict(names=dict(rider=[], car="car"))))
    assert found["a"] == [-1, 1, -1, -1, -1], "no name: the file does not annotate it"
    with pytest.raises(MTAdaptError, match="BDD100KLabels: names has the unknown category 'walker'; known: "):
        dataset(tree, reader=dict(names=dict(walker="person")))


def test_relations_come_from_half_open_boxes(tree: Tree):
    """The file's corners are inclusive: boxes of pixels 0 to 9 and 10 to 19 touch and do not overlap."""
    labels = dict(relations=["car left of bus"])
    for start, expected in ((10, 1), (9, 1), (8, 0)):
        tree.det("train", [frame("a", box("car", 0, 0, 9, 9), box("bus", start, 0, start + 9, 9))])
        assert scores(dataset(tree, labels))["a"] == [expected]


def test_images_that_are_listed_and_missing(tree: Tree):
    tree.det("train", [frame("a"), frame("gone"), frame("lost")])
    with pytest.raises(MTAdaptError) as error:
        dataset(tree)
    assert str(error.value) == (
        f"{tree.root}/labels/det_20/det_train.json: image {tree.root}/images/100k/train/gone.jpg is listed and missing "
        f"(2 of 6 are); place it there, or set missing='skip' on the dataset"
    )
    assert set(scores(dataset(tree, missing="skip"))) == {"a", "b", "c", "d"}


def test_bdd100k_errors(tree: Tree, tmp_path):
    with pytest.raises(MTAdaptError, match="style 'weather=rany'; BDD100K's values are clear, overcast"):
        dataset(tree, dict(style=["weather=rany"]))
    with pytest.raises(MTAdaptError, match="knows none of the 1 labels for any image; check the names"):
        dataset(tree, dict(objects=["dog"]))
    tree.det("train", [frame("a", weather="hail")])
    with pytest.raises(MTAdaptError, match=r"det_train\.json: frame 'a': weather is 'hail'; known: clear, overcast"):
        dataset(tree)
    tree.det("train", [frame("a", box("boat", 1, 1, 2, 2))])
    with pytest.raises(MTAdaptError, match="unknown category 'boat'"):
        dataset(tree)
    with pytest.raises(MTAdaptError, match="BDD100KLabels: unknown split 'test'; known: train, val"):
        dataset(tree, reader=dict(split="test"))
    with pytest.raises(MTAdaptError, match=r"det_train\.json: no such label file; run this"):
        dataset(Tree(tmp_path / "none"), reader=dict(remedy="run this"))
    tree.det("val", [])
    with pytest.raises(MTAdaptError, match="images/100k/val: no such folder of images; see docs"):
        dataset(tree, reader=dict(split="val"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(missing="ignore"), "missing='ignore'; use 'raise' or 'skip'"),
        (dict(on_error="ignore"), "on_error is 'ignore'; use 'raise' or 'skip'"),
        (dict(data_root="data"), r"unknown settings \['data_root'\]; paths are settings of its reader"),
    ],
)
def test_unknown_settings(tree: Tree, settings: dict, message: str):
    with pytest.raises(MTAdaptError, match=f"MultiLabelDataset: {message}"):
        dataset(tree, **settings)
    with pytest.raises(MTAdaptError, match="reader='BDD100KLabels'; write dict"):
        DATASETS.build(dict(type="MultiLabelDataset", labels=LABELS, reader="BDD100KLabels"))


def test_broken_images_are_raised_or_skipped(tree: Tree):
    (tree.root / "images/100k/train/b.jpg").write_bytes(b"")
    load = [dict(type="LoadImage")]
    reader = dict(type="BDD100KLabels", data_root=str(tree.root))
    settings = dict(type="MultiLabelDataset", labels=LABELS, reader=reader, pipeline=load)
    with pytest.raises(MTAdaptError, match=r"b\.jpg: truncated or not an image"):
        DATASETS.build(settings)[1]
    data = DATASETS.build(dict(settings, on_error="skip"))
    assert data[1]["img_path"].endswith("c.jpg") and data.num_skipped == 1
    for stem in "acd":
        (tree.root / f"images/100k/train/{stem}.jpg").write_bytes(b"")
    with pytest.raises(MTAdaptError, match=r"det_train\.json: no sample from number 0 on could be used"):
        data[0]


def test_two_sources_share_one_list_of_labels(tree: Tree, tmp_path):
    """As a mix: the metainfo is the task's, and other labels in another source are refused."""
    (tmp_path / "list.json").write_text(json.dumps({"x.png": ["dog"]}))
    assert cv2.imwrite(str(tmp_path / "x.png"), np.full((8, 8, 3), 7, np.uint8))
    pipeline = [dict(type="LoadImage"), dict(type="PretrainViews", base=[]), dict(type="PackPretrainInputs")]

    def source(reader: dict, labels: dict = LABELS) -> dict:
        config = dict(type="MultiLabelDataset", labels=labels, reader=reader, pipeline=pipeline)
        return dict(tasks=dict(mlc="label"), dataset=config)

    bdd = dict(type="BDD100KLabels", data_root=str(tree.root))
    plain = dict(type="LabelList", path=str(tmp_path / "list.json"), img_folder=str(tmp_path), kinds=["objects"])
    mixed = HeterogeneousDataset(dict(bdd=source(bdd), plain=source(plain)))
    assert mixed.sizes == dict(bdd=4, plain=1)
    assert mixed.metainfo["tasks"]["mlc"]["kinds"] == dict(style=(0, 3), objects=(3, 7), relations=(7, 11))
    packed = mixed[4]["data_samples"]
    assert packed.source == "plain" and packed.labelled_tasks == ("mlc",)
    assert packed.mlc.gt_score.tolist() == [-1, -1, -1, 0, 0, 0, 1, -1, -1, -1, -1]
    with pytest.raises(MTAdaptError, match="'bdd' and 'plain' claim task 'mlc' with different classes"):
        HeterogeneousDataset(dict(bdd=source(bdd), plain=source(plain, dict(objects=["dog", "car"]))))


@pytest.mark.parametrize("name", ["hvp_synthetic", "hvp_coco_bdd100k"])
def test_labels_of_the_configs(name: str):
    """All of them mirror into labels, and every relation is one of objects that are labels too."""
    config = Config.fromfile(ROOT / f"configs/_base_/datasets/{name}.py")
    vocabulary = LabelVocabulary(config.labels)
    assert (vocabulary.mirrored >= 0).all()
    objects = set(vocabulary.of_kind("objects"))
    assert all({one.subject, one.object} <= objects for one in vocabulary.relations)
    for loader in (config.train_dataloader, config.val_dataloader):
        assert all(source.dataset.labels == config.labels for source in loader.dataset.sources.values())


def test_the_synthetic_config_says_which_command_makes_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config.fromfile(ROOT / "configs/_base_/datasets/hvp_synthetic.py")
    with pytest.raises(MTAdaptError) as error:
        DATASETS.build(config.train_dataloader.dataset)
    assert str(error.value) == (
        "source 'synthetic': data/synthetic/labels/det_20/det_train.json: no such label file; "
        "python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 "
        "--seed 0 writes them"
    )
