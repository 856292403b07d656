"""COCO instances as labels, against pycocotools, and the counts of relations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from mtadapt.datasets import MultiLabelDataset
from mtadapt.datasets.multi_label import PREDICATES, spatial_relations
from mtadapt.datasets.multi_label.relation_counts import count_relations
from mtadapt.errors import MTAdaptError
from mtadapt.registry import DATASETS
from tests.command_line import ROOT, last_line, run

NAMES = ("person", "car", "dog", "cup")
LABELS = dict(
    style=["time=night"],
    objects=["car", "pedestrian", "dog", "traffic sign"],
    relations=["pedestrian next to car", "dog left of pedestrian", "car inside car", "traffic sign above car"],
)


def write(folder: Path, images: int = 60, boxes: int = 8, seed: int = 0) -> Path:
    """Random boxes of categories with gaps in their ids, crowds, and images without annotations, in any order."""
    rng = np.random.default_rng(seed)
    categories = [dict(id=3 * number + 1, name=name, supercategory="thing") for number, name in enumerate(NAMES)]
    entries = [dict(id=1000 - number, file_name=f"{number}.jpg", width=64, height=48) for number in range(images)]
    annotations: list[dict] = []
    for entry in entries[images // 6 :]:
        for _ in range(rng.integers(1, boxes)):
            x, y, width, height = rng.uniform(0, 30, 4).round(2).tolist()
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=entry["id"],
                    category_id=3 * int(rng.integers(0, 4)) + 1,
                    bbox=[x, y, width, height],
                    area=width * height,
                    iscrowd=int(rng.random() < 0.2),
                    segmentation=[[x, y, x + width, y, x + width, y + height]],
                )
            )
    rng.shuffle(annotations)
    path = folder / "instances.json"
    path.write_text(json.dumps(dict(info={}, images=entries, annotations=annotations, categories=categories)))
    (folder / "images").mkdir(exist_ok=True)
    for entry in entries:
        (folder / "images" / entry["file_name"]).touch()
    return path


def dataset(path: Path, labels: dict = LABELS, **settings) -> MultiLabelDataset:
    reader = dict(type="CocoLabels", ann_file=str(path), img_folder=str(path.parent / "images"), **settings)
    return DATASETS.build(dict(type="MultiLabelDataset", labels=labels, reader=reader, pipeline=[]))


def expected_scores(coco: COCO, image: int) -> dict[str, int]:
    """The labels of an image, written out; ``pedestrian`` is COCO's ``person``."""
    annotations = coco.loadAnns(coco.getAnnIds(imgIds=image))
    names = {
        one["id"]: dict(person="pedestrian").get(one["name"], one["name"]) for one in coco.loadCats(coco.getCatIds())
    }
    real = [one for one in annotations if not one["iscrowd"]]
    there = {names[one["category_id"]] for one in real}
    crowds = {names[one["category_id"]] for one in annotations if one["iscrowd"]}
    found = {name: 1 if name in there else -1 if name in crowds else 0 for name in names.values()}
    boxes = np.array([one["bbox"] for one in real]).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    holds = set()
    for number, a, b in zip(*spatial_relations(boxes).nonzero(), strict=True):
        holds.add(f"{names[real[a]['category_id']]} {PREDICATES[number]} {names[real[b]['category_id']]}")
    for first in names.values():
        for second in names.values():
            for predicate in PREDICATES:
                name = f"{first} {predicate} {second}"
                found[name] = 1 if name in holds else -1 if {first, second} & crowds else 0
    return found


def test_labels_are_those_that_pycocotools_reads(tmp_path):
    path = write(tmp_path)
    coco, data = COCO(str(path)), dataset(path, names=dict(person="pedestrian"))
    names = data.metainfo["classes"]
    totals = np.zeros((3, len(names)), int)
    for number, (image, entry) in enumerate(coco.imgs.items()):
        info = data.get_data_info(number)
        assert info["img_path"] == str(tmp_path / "images" / entry["file_name"])
        expected = expected_scores(coco, image)
        found = dict(zip(names, info["gt_score"].astype(int).tolist(), strict=True))
        assert found == {name: expected.get(name, -1) for name in names}
        totals += info["gt_score"] == np.array([[-1], [0], [1]])
    known = ["time" not in name and "traffic sign" not in name for name in names]
    assert totals[:, known].all(), "every label is absent, present and unknown somewhere"
    assert (totals[0] == len(data)).tolist() == [not one for one in known], "COCO has no style and no traffic sign"


def test_images_without_annotations_have_no_objects(tmp_path):
    data = dataset(write(tmp_path), dict(objects=["person", "car"], relations=["car above car"]))
    assert data.get_data_info(0)["gt_score"].tolist() == [0, 0, 0]


def test_boxes_without_area_are_objects_without_relations(tmp_path):
    path = write(tmp_path, 1)
    document = json.loads(path.read_text())
    document["annotations"] = [
        dict(image_id=1000, category_id=1, bbox=[0, 0, 0, 5]),
        dict(image_id=1000, category_id=4, bbox=[2, 0, 5, 5]),
    ]
    path.write_text(json.dumps(document))
    assert dataset(path, dict(objects=["person"], relations=["person left of car"])).get_data_info(0)[
        "gt_score"
    ].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(images=[dict(id=1, file_name="0.jpg"), dict(id=1, file_name="1.jpg")]),
            "1 images have an id that another",
        ),
        (dict(images=[dict(id=1, file_name="0.jpg"), dict(id=2, file_name="0.jpg")]), "image .*/0.jpg is listed twice"),
        (dict(images=[dict(id=1, file_name="none.jpg")]), "image .*/none.jpg is listed and missing"),
        (dict(annotations=[dict(image_id=7, category_id=1, bbox=[1, 1, 2, 2])]), "annotation 0 with image_id 7, categ"),
        (
            dict(annotations=[dict(image_id=1, category_id=9, bbox=[1, 1, 2, 2])]),
            "annotation 0 with .*, category_id 9 and bbox ",
        ),
        (
            dict(annotations=[dict(image_id=1, category_id=1, bbox=[1, 1, 2, -2])]),
            r"annotation 0 with .* bbox \[1.0, 1.0, 2.0, -2.0\]: ",
        ),
        (dict(annotations=[dict(image_id=1, category_id=1, bbox=[1, 1, 2])]), r".*annotations\[0\].bbox.*; write COCO"),
        (dict(annotations=[dict(image_id=1, category_id=1)]), "Object missing required field `bbox`"),
    ],
)
def test_broken_files(tmp_path, change: dict, message: str):
    path = write(tmp_path, 2)
    document = dict(images=[dict(id=1, file_name="0.jpg")], annotations=[], categories=[dict(id=1, name="car")])
    path.write_text(json.dumps({**document, **change}))
    with pytest.raises(MTAdaptError, match=f"instances.json: {message}") as error:
        dataset(path)
    assert len(str(error.value).splitlines()) == 1


def test_missing_and_cut_files(tmp_path):
    path = write(tmp_path, 2)
    path.write_text(path.read_text()[:100])
    with pytest.raises(MTAdaptError, match=r"instances\.json: broken JSON .*; download the file again"):
        dataset(path)
    with pytest.raises(MTAdaptError, match=r"none\.json: no such label file; run this"):
        dataset(tmp_path / "none.json", remedy="run this")
    with pytest.raises(MTAdaptError, match="CocoLabels: names has the unknown category 'walker'; known: person, car"):
        dataset(write(tmp_path, 2), names=dict(walker="person"))


def test_counts_are_those_of_the_labels(tmp_path):
    """Of both directions of ``next to`` there is one, and the two of ``left of`` follow each other."""
    path = write(tmp_path, 80, 10)
    counts, images = count_relations(str(path), dict(person=["person", "walker"]))
    assert images == 80
    found = dict(counts)
    names = [*NAMES, "walker"]
    every = [f"{a} {predicate} {b}" for a in names for predicate in PREDICATES for b in names]
    labels = [name for name in every if " next to " not in name or name in found]
    data = dataset(path, dict(relations=labels), names=dict(person=["person", "walker"]))
    present = sum((data.get_data_info(number)["gt_score"] > 0).astype(int) for number in range(len(data)))
    assert found == {name: number for name, number in zip(labels, present.tolist(), strict=True) if number}
    assert all(f"{b} next to {a}" not in found for a in names for b in names if a != b and f"{a} next to {b}" in found)
    order = [name for name, _ in counts]
    for name in order:
        if " left of " in name:
            first, second = name.split(" left of ")
            mirror = f"{second} left of {first}"
            assert mirror not in found or abs(order.index(mirror) - order.index(name)) <= 1
    assert count_relations(str(path), least=20)[0] == [pair for pair in count_relations(str(path))[0] if pair[1] >= 20]


def test_the_tool_prints_a_list_for_a_config(tmp_path, bdd):
    tool = ROOT / "tools/dataset_converters/relation_labels.py"
    path = write(tmp_path, 80, 10)
    printed = run(tool, path, "--top", 5, cwd=tmp_path)
    settings: dict = {}
    exec(printed[printed.index("# ") :], settings)  # noqa: S102
    counts = [name for name, _ in count_relations(str(path))[0]]
    assert settings["relations"] == counts[: len(settings["relations"])] and len(settings["relations"]) in (5, 6)
    labels = bdd.root / "labels/det_20/det_train.json"
    assert f"# {labels}: 0 relations in 3 images" in run(tool, labels, cwd=tmp_path)
    failed = run(tool, tmp_path / "none.json", cwd=tmp_path, code=2)
    assert last_line(failed).startswith(f"error: {tmp_path}/none.json: cannot be read (No such file or directory)")
    failed = run(tool, path, "--names", "person", cwd=tmp_path, code=2)
    assert last_line(failed) == "error: --names person: write CATEGORY=NAME or CATEGORY=NAME,NAME"
