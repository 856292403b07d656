from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.runner import Runner

from mtadapt.datasets import HeterogeneousDataset
from mtadapt.datasets.heterogeneous import Draw
from mtadapt.errors import MTAdaptError
from mtadapt.registry import DATASETS
from tests.test_datasets.sources import CLASSES, trio, write_trio


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trio")
    write_trio(folder)
    return folder


def loader(sources, num_workers=0, **batch_sampler):
    settings = dict(batch_size=dict(in1k=4, coco=2, ade20k=2), weights=dict(in1k=2, coco=1, ade20k=1))
    return Runner.build_dataloader(
        dict(
            num_workers=num_workers,
            batch_size=1,
            sampler=dict(type="InfiniteSampler"),
            dataset=dict(type="HeterogeneousDataset", sources=sources),
            batch_sampler=dict(type="HeterogeneousBatchSampler", **{**settings, **batch_sampler}),
        ),
        seed=0,
    )


def test_each_source_keeps_its_native_samples_and_metainfo(root):
    dataset = HeterogeneousDataset(trio(root))
    assert dataset.sizes == dict(in1k=6, coco=6, ade20k=6) and len(dataset) == 18
    cls, det, seg = (dataset[number] for number in (0, 6, 12))
    assert cls["data_samples"].cls.gt_label.tolist() == [0] and cls["inputs"].dtype == torch.uint8
    assert det["data_samples"].det.gt_instances.labels.tolist() == [0]
    assert seg["data_samples"].sem_seg.gt_sem_seg.data.shape == (1, 24, 24)
    assert [sample["data_samples"].labelled_tasks for sample in (cls, det, seg)] == [("cls",), ("det",), ("sem_seg",)]
    assert [sample["data_samples"].source for sample in (cls, det, seg)] == ["in1k", "coco", "ade20k"]
    for task, classes in CLASSES.items():
        assert dataset.metainfo["tasks"][task]["classes"] == classes
    assert dataset.metainfo["sources"]["ade20k"]["reduce_zero_label"] is True
    assert dataset.get_data_info(7)["width"] == 32 and dataset[-1]["data_samples"].source == "ade20k"
    with pytest.raises(IndexError):
        dataset[18]


def test_samples_are_those_of_the_stock_datasets(root):
    sources = trio(root)
    for position, (name, source) in enumerate(sources.items()):
        stock = DATASETS.build(dict(source["dataset"], _scope_=source["dataset"]["type"].split(".")[0]))
        dataset = HeterogeneousDataset(sources)
        for number in range(6):
            random.seed(7), np.random.seed(0), torch.manual_seed(7)  # noqa: NPY002
            expected = stock[number]
            found = dataset[Draw(position, number, 7)]
            assert torch.equal(found["inputs"], expected["inputs"]), name
            native = found["data_samples"].task(source["tasks"][0])
            for key in ("gt_label", "gt_sem_seg"):
                if key in native:
                    first, second = native.get(key), expected["data_samples"].get(key)
                    assert torch.equal(getattr(first, "data", first), getattr(second, "data", second))
            if "gt_instances" in native:
                first, second = native.gt_instances.bboxes, expected["data_samples"].gt_instances.bboxes
                assert torch.equal(first.tensor, second.tensor)


def test_zero_is_ignored_in_ade20k_maps(root):
    dataset = HeterogeneousDataset(trio(root))
    sample = dataset[Draw(2, 0, 3)]["data_samples"].sem_seg
    assert set(sample.gt_sem_seg.data.unique().tolist()) == {0, 1, 255}
    stem = Path(sample.img_path).stem
    written = cv2.imread(str(root / "ade20k" / "maps" / f"{stem}.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(written)) == {0, 1, 2}


def test_randomness_belongs_to_the_draw_and_not_to_the_process(root):
    """Equal for any number of workers, different for two draws of one sample, and gone afterwards."""
    streams = []
    for workers in (0, 1, 3):
        batches = itertools.islice(iter(loader(trio(root), workers)), 8)
        streams.append([image for batch in batches for image in batch["inputs"]])
    for stream in streams[1:]:
        assert all(torch.equal(one, two) for one, two in zip(streams[0], stream, strict=True))
    dataset = HeterogeneousDataset(trio(root))
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    first, again, other = (dataset[Draw(0, 1, seed)]["inputs"] for seed in (5, 5, 2**63 + 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


def test_batches_tell_their_source_to_the_model(root):
    batch = next(iter(loader(trio(root), mode="mixed", weights=None, accumulate=None)))
    samples = batch["data_samples"]
    assert [sample.source for sample in samples] == ["ade20k"] * 2 + ["coco"] * 2 + ["in1k"] * 4
    assert {sample.source: sample.source_tasks for sample in samples}["coco"] == ("det",)
    assert {sample.accumulation for sample in samples} == {(0, 1)}


def test_wide_and_high_images_are_known_from_coco(root):
    dataset = HeterogeneousDataset(trio(root))
    groups = dataset.aspect_ratio_groups("coco")
    assert groups(np.arange(6)).tolist() == [0, 1, 0, 1, 0, 1]
    assert dataset.aspect_ratio_groups("in1k") is None


def test_two_sources_may_label_one_task(root):
    sources = trio(root)
    dataset = HeterogeneousDataset(dict(first=sources["coco"], second=sources["coco"]))
    assert len(dataset) == 12 and [*dataset.metainfo["tasks"]] == ["det"]


def test_a_task_of_any_name_takes_the_labels_that_are_there(root):
    sources = dict(a=dict(trio(root)["in1k"], tasks=["weather"]), b=dict(trio(root)["coco"], tasks=dict(cars="boxes")))
    dataset = HeterogeneousDataset(sources)
    assert "gt_label" in dataset[0]["data_samples"].weather
    assert "gt_instances" in dataset[6]["data_samples"].cars


def test_multi_task_sources_keep_their_own_labels(bdd):
    pipeline = [dict(type="LoadImage"), dict(type="LoadMultiTaskAnnotations"), dict(type="PackMultiTaskInputs")]
    source = dict(type="BDD100KDataset", data_root=str(bdd.root), pipeline=pipeline)
    tasks = ["det", "sem_seg", "drivable"]
    dataset = HeterogeneousDataset(dict(bdd=dict(tasks=tasks, dataset=source)))
    labelled = {
        Path(dataset[number]["data_samples"].img_path).stem: dataset[number]["data_samples"].labelled_tasks
        for number in range(len(dataset))
    }
    assert labelled["a"] == ("det", "drivable") and labelled["d"] == ("sem_seg",)
    # What the source can label, not what this image is labelled for: the same on all processes.
    assert all(dataset[Draw(0, number, 1)]["data_samples"].source_tasks == tuple(tasks) for number in range(4))
    with pytest.raises(MTAdaptError, match=r"source 'bdd' labels drivable, which its tasks=\['det'\] leave out"):
        HeterogeneousDataset(dict(bdd=dict(tasks=["det"], dataset=dict(source, tasks=["det", "drivable"]))))


def empty_coco(root: Path) -> dict:
    path = root / "coco" / "empty.json"
    categories = [dict(id=number + 1, name=name) for number, name in enumerate(CLASSES["det"])]
    path.write_text(json.dumps(dict(images=[], annotations=[], categories=categories)))
    source = trio(root)["coco"]
    return dict(source, dataset=dict(source["dataset"], ann_file="empty.json"))


def other_file(root: Path, change) -> dict:
    """The COCO source with another annotation file."""
    document = json.loads((root / "coco" / "train.json").read_text())
    change(document)
    (root / "coco" / "other.json").write_text(json.dumps(document))
    return setting(root, ann_file="other.json")


def no_boxes(root: Path) -> dict:
    source = trio(root)["coco"]
    pipeline = [dict(type="LoadImageFromFile"), dict(type="PackDetInputs")]
    return dict(source, dataset=dict(source["dataset"], pipeline=pipeline))


def other_classes(root: Path) -> dict:
    source = other_file(root, lambda document: document["categories"][2].update(name="tram"))
    return dict(source, dataset=dict(source["dataset"], metainfo=dict(classes=("car", "bus", "tram"))))


def setting(root: Path, **changes) -> dict:
    source = trio(root)["coco"]
    return dict(source, dataset=dict(source["dataset"], **changes))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (empty_coco, r"source 'bad' is empty; check its paths"),
        (no_boxes, r"source 'bad' has no boxes for task 'det' \(.*\.jpg\); load them in its pipeline"),
        (
            lambda root: dict(trio(root)["coco"], tasks=["sem_seg"]),
            r"source 'bad' has no map for task 'sem_seg'",
        ),
        (
            other_classes,
            r"sources 'coco' and 'bad' claim task 'det' with different classes \(class 2 is 'van' and 'tram'\)",
        ),
        (lambda root: dict(dataset=trio(root)["coco"]["dataset"]), r"source 'bad': write dict\(dataset=.*, tasks="),
        (lambda root: dict(trio(root)["coco"], tasks=[]), r"source 'bad': tasks=\[\]; write a list such as"),
        (lambda root: dict(trio(root)["coco"], tasks=dict(det="box")), r"source 'bad': unknown kinds of labels"),
        (lambda root: setting(root, ann_file="no.json"), r"source 'bad': its dataset cannot be built: .*no\.json"),
        (lambda root: setting(root, type="mmdet.CoocDataset"), r"source 'bad': .*CoocDataset"),
        (lambda root: setting(root, colour=1), r"source 'bad': .*colour"),
        (
            lambda root: other_file(root, lambda document: document["categories"].reverse()),
            r"source 'bad': .*other.json has the categories van, bus, car in this order, metainfo the classes car,",
        ),
        (
            lambda root: other_file(root, lambda document: document["categories"].pop(0)),
            r"source 'bad': .*has the categories bus, van in this order",
        ),
        (
            lambda root: other_file(root, lambda document: document["annotations"].clear()),
            r"source 'bad': none of the first 6 images in .*other.json has a box",
        ),
        (
            lambda root: setting(root, data_prefix=dict(img="elsewhere/")),
            r"source 'bad': its first sample cannot be loaded: FileNotFoundError: .*elsewhere/0.jpg",
        ),
    ],
)
def test_bad_sources_are_named(root, make, message):
    with pytest.raises(MTAdaptError, match=message):
        HeterogeneousDataset(dict(coco=trio(root)["coco"], bad=make(root)))


def test_bad_tables_of_sources():
    with pytest.raises(MTAdaptError, match=r"sources=\{\}; write dict\(name="):
        HeterogeneousDataset({})
    with pytest.raises(MTAdaptError, match=r"source name 'a-b'; use letters"):
        HeterogeneousDataset({"a-b": {}})


def test_maps_that_mean_other_classes_are_refused(root):
    source = trio(root)["ade20k"]
    plain = dict(source, dataset=dict(source["dataset"], reduce_zero_label=False))
    with pytest.raises(MTAdaptError, match=r"source 'plain': .* has class id 2 for task 'sem_seg' of 2 classes"):
        HeterogeneousDataset(dict(plain=plain))
    three = dict(plain, dataset=dict(plain["dataset"], metainfo=dict(classes=("other", "road", "sky"))))
    HeterogeneousDataset(dict(plain=three))
    shifted = dict(source, dataset=dict(source["dataset"], metainfo=dict(classes=("other", "road", "sky"))))
    with pytest.raises(MTAdaptError, match=r"claim task 'sem_seg' with reduce_zero_label=False and True"):
        HeterogeneousDataset(dict(plain=three, shifted=shifted))


def test_plain_indices_leave_randomness_to_the_loader(root):
    """As in the stock datasets: drawn anew each time."""
    dataset = HeterogeneousDataset(trio(root))
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    images = [dataset[0]["inputs"] for _ in range(10)]
    assert len({image.numpy().tobytes() for image in images}) > 5
