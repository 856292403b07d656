"""Plain lists of labels in JSON and CSV, and what is refused in them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtadapt.datasets import MultiLabelDataset
from mtadapt.errors import MTAdaptError
from mtadapt.registry import DATASETS

LABELS = dict(
    style=["time=day", "time=night", "blurred"], objects=["car", "bus", "person"], relations=["car left of bus"]
)
#: A list of names tells of all labels, an object and a line of those that they name.
DOCUMENT = """{
  "a.png": ["car", "time=night"],
  "deep/b.png": {"car": 1, "bus": 0, "person": null, "time=day": 0},
  "c.png": null,
  "d.png": []
}"""
TABLE = "\ufeffperson, car,file,time=day,time=night,bus\n,1,a.png,,1,0\n1,0,deep/b.png,0,,\n\n,,c.png,,,\n"


@pytest.fixture
def images(tmp_path) -> Path:
    for name in ("a.png", "deep/b.png", "c.png", "d.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(tmp_path / "images" / name), np.zeros((4, 4, 3), np.uint8))
    return tmp_path / "images"


def dataset(images: Path, text: str, suffix: str = ".json", **settings) -> MultiLabelDataset:
    path = images.parent / f"list{suffix}"
    path.write_text(text, encoding="utf-8")
    reader = dict(type="LabelList", path=str(path), img_folder=str(images), **settings)
    return DATASETS.build(dict(type="MultiLabelDataset", labels=LABELS, reader=reader, pipeline=[]))


def scores(data: MultiLabelDataset) -> list[list[int]]:
    return [data.get_data_info(number)["gt_score"].astype(int).tolist() for number in range(len(data))]


def test_json(images):
    data = dataset(images, DOCUMENT)
    assert [data.get_data_info(number)["img_path"] for number in (0, 1)] == [f"{images}/a.png", f"{images}/deep/b.png"]
    assert scores(data) == [
        [0, 1, 0, 1, 0, 0, 0],
        [0, -1, -1, 1, 0, -1, -1],
        [-1] * 7,
        [-1, -1, 0, 0, 0, 0, 0],  # no time of day is named
    ]


def test_a_source_without_labels(images):
    """For masked images and contrast alone."""
    assert scores(dataset(images, '{"a.png": null, "c.png": {}}')) == [[-1] * 7] * 2
    assert scores(dataset(images, "file\na.png\n", ".csv")) == [[-1] * 7]


def test_csv(images):
    assert scores(dataset(images, TABLE, ".csv")) == [
        [0, 1, -1, 1, 0, -1, -1],
        [0, -1, -1, 0, -1, 1, -1],
        [-1] * 7,
    ]


def test_csv_with_quotes_and_windows_lines(images):
    assert cv2.imwrite(str(images / "e, f.png"), np.zeros((4, 4, 3), np.uint8))
    assert scores(dataset(images, 'file,car\r\n"e, f.png",1\r\na.png,\r\n', ".csv")) == [
        [-1] * 3 + [1] + [-1] * 3,
        [-1] * 7,
    ]


def test_kinds_that_the_list_speaks_of(images):
    found = scores(dataset(images, '{"a.png": ["car"]}', kinds=["objects"]))
    assert found == [[-1, -1, -1, 1, 0, 0, -1]]
    with pytest.raises(MTAdaptError, match=r"image 'a\.png': unknown label 'time=day'; known: car, bus, person; "):
        dataset(images, '{"a.png": ["time=day"]}', kinds=["objects"])


def test_other_names(images):
    """Of several names for one label, one that is present counts, then one that is unknown."""
    names = dict(man="person", woman="person", van=["car", "bus"], tree=None)
    assert scores(dataset(images, '{"a.png": ["van", "tree"], "c.png": ["woman"]}', names=names)) == [
        [-1, -1, 0, 1, 1, 0, 0],
        [-1, -1, 0, 0, 0, 1, 0],
    ]
    table = "file,man,woman\na.png,0,1\nc.png,0,\nd.png,0,0\n"
    assert [row[5] for row in scores(dataset(images, table, ".csv", names=names))] == [1, -1, 0]
    with pytest.raises(MTAdaptError, match="LabelList: names maps 'man' to 'human', which is no label"):
        dataset(images, "{}", names=dict(man="human"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a.png": ["boat"]}', "image 'a.png': unknown label 'boat'; known: time=day, time=night, blurred, car"),
        ('{"a.png": {"boat": 1}}', "image 'a.png': unknown label 'boat'; known"),
        ('{"a.png": [3]}', "image 'a.png': unknown label 3; known"),
        ('{"a.png": {"car": 2}}', "image 'a.png': label 'car' is 2; write 1, 0 or null"),
        ('{"a.png": {"car": true}}', "image 'a.png': label 'car' is True; write 1, 0 or null"),
        ('{"a.png": {"car": "1"}}', "image 'a.png': label 'car' is '1'; write 1, 0 or null"),
        ('{"a.png": {"car": [1]}}', r"image 'a.png': label 'car' is \[1\]; write 1, 0 or null"),
        ('{"a.png": {"car": 1, "car": 0}}', "image 'a.png': label 'car' is there twice; leave one out"),
        ('{"a.png": "car"}', "image 'a.png': labels are 'car'; write a list of names"),
        ('{"a.png": ["time=day", "time=night"]}', "image 'a.png': 'time=day' and 'time=night' are present; "),
        ('{"a.png": ["car"], "a.png": ["bus"]}', "image .*/a.png is listed twice; leave one entry out"),
        ('{"a.png": ["car"], "./a.png": ["bus"]}', "image .*/a.png is listed twice"),
        (
            '{"a.png": ["car"], "z.png": ["bus"]}',
            r"image .*/z.png is listed and missing \(1 of 2 are\); place it there",
        ),
        ('{"none/z.png": ["bus"]}', "image .*/none/z.png is listed and missing .*; check the paths of the reader"),
        ("{}", "no images; check the paths of the reader"),
        ('["a.png"]', "holds a list; write one object, image to labels"),
        ('{"a.png": [', "cannot be read as JSON: JSONDecodeError"),
    ],
)
def test_broken_json(images, text: str, message: str):
    with pytest.raises(MTAdaptError, match=f"list.json: {message}") as error:
        dataset(images, text)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,boat\na.png,1\n", "line 1: unknown label 'boat'; known: time=day"),
        ("name,car\na.png,1\n", "line 1: the header is 'name,car'; it needs one column 'file'"),
        ("file,car,car\na.png,1,0\n", "line 1: the header is 'file,car,car'; it needs .* every label once"),
        ("", "line 1: the header is ''; it needs one column 'file'"),
        ("file,car\na.png,yes\n", "line 2, image 'a.png': label 'car' is 'yes'; write 1, 0 or nothing"),
        ("file,car\na.png\n", "line 2: 1 cells; the header has 2 columns"),
        ("file,car\n\na.png,1,0\n", "line 3: 3 cells; the header has 2 columns"),
        ("file,time=day,time=night\na.png,1,1\n", "line 2, image 'a.png': 'time=day' and 'time=night' are present"),
        ("file,car\na.png,1\na.png,0\n", "image .*/a.png is listed twice"),
        ("file,car\nz.png,1\na.png,0\n", "image .*/z.png is listed and missing"),
        ('file,car\n"a.png,1\n', "line 2: broken CSV"),
        ("file,car\n", "no images"),
    ],
)
def test_broken_csv(images, text: str, message: str):
    with pytest.raises(MTAdaptError, match=f"list.csv: {message}"):
        dataset(images, text, ".csv")


def test_missing_files_and_settings(images):
    reader = dict(type="LabelList", path=str(images / "none.json"), img_folder=str(images), remedy="run this")
    with pytest.raises(MTAdaptError, match=r"none\.json: no such label file; run this"):
        DATASETS.build(dict(type="MultiLabelDataset", labels=LABELS, reader=reader))
    (images.parent / "list.json").write_text(DOCUMENT)
    reader.update(path=str(images.parent / "list.json"), img_folder="/nowhere")
    with pytest.raises(MTAdaptError, match="/nowhere: no such folder of images; run this"):
        DATASETS.build(dict(type="MultiLabelDataset", labels=LABELS, reader=reader))
    with pytest.raises(MTAdaptError, match=r"LabelList: path='labels.txt'; the list is a .json or a .csv file"):
        DATASETS.build(dict(type="MultiLabelDataset", labels=LABELS, reader=dict(reader, path="labels.txt")))
    with pytest.raises(MTAdaptError, match="LabelList: kinds='objects'; write a list of style, objects, relations"):
        dataset(images, DOCUMENT, kinds="objects")


def test_a_latin_file_is_named(images):
    path = images.parent / "latin.csv"
    path.write_bytes("file,car\nd\xe9.png,1\n".encode("latin-1"))
    reader = dict(type="LabelList", path=str(path), img_folder=str(images))
    with pytest.raises(MTAdaptError, match=r"latin\.csv: line \d: broken CSV: UnicodeDecodeError"):
        DATASETS.build(dict(type="MultiLabelDataset", labels=LABELS, reader=reader))


def test_json_is_utf8(images):
    assert cv2.imwrite(str(images / "é.png"), np.zeros((4, 4, 3), np.uint8))
    assert len(dataset(images, json.dumps({"é.png": ["car"]}, ensure_ascii=False))) == 1
