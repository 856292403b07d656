"""What is written: read back by the readers of each format, and judged by the official BDD100K tool."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import mmdet.evaluation.metrics.coco_metric as coco_metric
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mtadapt.apis.outputs import OutputSet, ScalabelFile, open_outputs, scalabel_frame
from mtadapt.apis.outputs.video import VideoFile
from mtadapt.apis.sources import Frame
from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.datasets.scalabel import read_boxes
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample

from . import official_submission

METAS = dict(METAINFO["tasks"], cls=dict(classes=("clear", "rainy")))
SIZE = (20, 30)
CORNERS = [[2.0, 3.0, 12.5, 9.0], [0.0, 0.0, 30.0, 20.0], [5.0, 5.0, 5.25, 6.0]]


def make_frame(name: str = "a", video: str | None = None, number: int | None = None) -> Frame:
    return Frame(name, np.zeros((*SIZE, 3), np.uint8), f"{name}.jpg", f"{name}.jpg", video, number, 10)


def make_sample() -> MultiTaskDataSample:
    """Three boxes, the last the best and less than a pixel wide; a map with classes 0 and 10; a label."""
    sample = MultiTaskDataSample(metainfo=dict(ori_shape=SIZE))
    found = InstanceData(
        bboxes=torch.tensor(CORNERS), labels=torch.tensor([2, 0, 9]), scores=torch.tensor([0.5, 0.25, 0.75])
    )
    sample.set_task("det", DetDataSample(pred_instances=found))
    seg_map = torch.zeros(1, *SIZE, dtype=torch.int64)
    seg_map[:, :7] = 10
    sample.set_task("sem_seg", SegDataSample(pred_sem_seg=PixelData(data=seg_map)))
    sample.set_task("cls", DataSample().set_pred_score(torch.tensor([0.25, 0.75])).set_pred_label(1))
    return sample


def test_a_frame_of_scalabel():
    metas = {task: METAS[task] for task in ("det", "sem_seg", "cls")}
    entry = scalabel_frame(make_frame("drive_000004", "drive", 4), make_sample(), metas)
    assert (entry["videoName"], entry["frameIndex"], entry["size"]) == ("drive", 4, dict(width=30, height=20))
    assert entry["attributes"] == dict(cls="rainy", cls_score=0.75)
    first, second, third, road, sky = entry["labels"]
    assert [label["id"] for label in entry["labels"]] == ["0", "1", "2", "3", "4"]
    assert (first["category"], first["score"]) == ("traffic sign", 0.75)
    # The last pixel is included, and a box is at least one pixel wide.
    assert first["box2d"] == dict(x1=5, y1=5, x2=5, y2=5)
    assert (second["category"], second["box2d"]) == ("car", dict(x1=2, y1=3, x2=11.5, y2=8))
    assert third["box2d"] == dict(x1=0, y1=0, x2=29, y2=19)
    assert [(label["category"], label["attributes"]["task"]) for label in (first, road, sky)] == [
        ("traffic sign", "det"),
        ("road", "sem_seg"),
        ("sky", "sem_seg"),
    ]
    mask = coco_mask.decode(sky["rle"])
    assert mask.shape == SIZE and mask[:7].all() and not mask[7:].any()


def test_scalabel_is_read_back_by_the_dataset(tmp_path: Path):
    output = ScalabelFile(tmp_path / "found.json", METAS)
    for name in "ab":
        output.add(make_frame(name), make_sample(), None)
    assert not (tmp_path / "found.json").exists()
    (path,) = output.finish()
    ids = {name: number for number, name in enumerate(METAS["det"]["classes"])}
    boxes, bad = read_boxes(path, ids, {}, skip_bad=False)
    assert bad == 0 and sorted(boxes) == ["a", "b"]
    corners, labels, _ = boxes["a"].unpack()
    assert labels.tolist() == [9, 2, 0]
    np.testing.assert_allclose(corners, [[5, 5, 6, 6], CORNERS[0], CORNERS[1]])


def test_coco_results_are_those_of_the_tool(tmp_path: Path):
    """Perfect predictions have AP 1 against annotations whose ids are others."""
    annotations = dict(
        images=[dict(id=70 + number, file_name=f"{name}.jpg", width=30, height=20) for number, name in enumerate("ab")],
        categories=[dict(id=number * 3 + 5, name=name) for number, name in enumerate(METAS["det"]["classes"])],
        annotations=[
            dict(id=1, image_id=71, category_id=11, bbox=[2.0, 3.0, 10.5, 6.0], area=63, iscrowd=0),
            dict(id=2, image_id=71, category_id=5, bbox=[0.0, 0.0, 30.0, 20.0], area=600, iscrowd=0),
        ],
    )
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(annotations))
    metas = {task: METAS[task] for task in ("det", "sem_seg")}
    outputs = open_outputs(tmp_path / "out", metas, ["coco", "masks"], draw=False, coco_annotations=path)
    outputs.add(make_frame("b"), make_sample(), None)
    with pytest.raises(MTAdaptError, match=r"c.jpg is no image of .*instances.json"):
        outputs.add(make_frame("c"), make_sample(), None)
    outputs.finish()
    with redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        judged = COCOeval(truth, truth.loadRes(str(tmp_path / "out/coco/det.json")), "bbox")
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    assert judged.stats[0] == pytest.approx(1)
    dense = json.loads((tmp_path / "out/coco/sem_seg.json").read_text())
    # Its classes are not those of the annotations, so they count from 1.
    assert [(each["image_id"], each["category_id"]) for each in dense] == [(71, 1), (71, 11)]
    assert coco_mask.area(dense[1]["segmentation"]) == 7 * 30
    ids = cv2.imread(str(tmp_path / "out/masks/sem_seg/b.png"), cv2.IMREAD_UNCHANGED)
    assert ids.dtype == np.uint8 and np.array_equal(ids, make_sample().sem_seg.pred_sem_seg.data[0].numpy())


def test_coco_ids_without_annotations(tmp_path: Path):
    outputs = open_outputs(tmp_path / "out", dict(det=METAS["det"]), ["coco"], draw=False)
    for name in "ab":
        outputs.add(make_frame(name), make_sample(), None)
    outputs.finish()
    images = json.loads((tmp_path / "out/coco/images.json").read_text())
    assert [(each["id"], each["file_name"]) for each in images["images"]] == [(0, "a.jpg"), (1, "b.jpg")]
    assert images["categories"]["det"][2] == dict(id=3, name="car")
    results = json.loads((tmp_path / "out/coco/det.json").read_text())
    assert [each["category_id"] for each in results] == [10, 3, 1] * 2
    assert results[1] == dict(image_id=0, category_id=3, bbox=[2.0, 3.0, 10.5, 6.0], score=0.5)


def test_annotations_that_lack_a_class(tmp_path: Path):
    path = tmp_path / "some.json"
    path.write_text(json.dumps(dict(images=[], categories=[dict(id=1, name="car")])))
    with pytest.raises(MTAdaptError, match="has no category 'pedestrian' of task 'det'"):
        open_outputs(tmp_path / "out", METAS, ["coco"], coco_annotations=path)
    path.write_text("[]")
    with pytest.raises(MTAdaptError, match=r"some.json: no COCO annotations"):
        open_outputs(tmp_path / "out", METAS, ["coco"], coco_annotations=path)
    assert not (tmp_path / "out").exists()


def test_annotations_with_folders(tmp_path: Path):
    """The longest end that names have in common decides; what it does not decide is refused."""
    images = [dict(id=number, file_name=f"train/{name}.jpg") for number, name in enumerate(("x/1", "y/1", "2"), 5)]
    path = tmp_path / "some.json"
    categories = [dict(id=number, name=name) for number, name in enumerate(METAS["det"]["classes"])]
    path.write_text(json.dumps(dict(images=images, categories=categories)))
    outputs = open_outputs(tmp_path / "out", dict(det=METAS["det"]), ["coco"], draw=False, coco_annotations=path)
    for name in ("y/1", "all/x/1", "2"):
        outputs.add(make_frame(name), make_sample(), None)
    for name in ("1", "z/2"):
        with pytest.raises(MTAdaptError, match=rf"{name}.jpg: .*some.json does not tell it from"):
            outputs.add(make_frame(name), make_sample(), None)
    outputs.finish()
    written = json.loads((tmp_path / "out/coco/images.json").read_text())["images"]
    assert [(each["id"], each["file_name"]) for each in written] == [(6, "y/1.jpg"), (5, "all/x/1.jpg"), (7, "2.jpg")]


@pytest.fixture(scope="module")
def submitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, MultiTaskDataSample]]:
    folder = tmp_path_factory.mktemp("submitted")
    with DefaultScope.overwrite_default_scope("mtadapt"):
        return folder, official_submission.write(folder)


def test_a_submission_has_the_files_that_the_official_tool_judged(submitted):
    folder, _ = submitted
    golden = json.loads(official_submission.GOLDEN.read_text())
    assert official_submission.digest(folder / "bdd100k") == golden["files"]


def test_the_official_numbers_of_a_submission_are_our_metrics(submitted, monkeypatch: pytest.MonkeyPatch):
    """The tool read the files, the metrics read the samples."""
    folder, samples = submitted
    golden = json.loads(official_submission.GOLDEN.read_text())
    stats: list[np.ndarray] = []

    class Recorded(coco_metric.COCOeval):
        def summarize(self) -> None:
            super().summarize()
            stats.append(self.stats)

    # CocoMetric rounds to three digits.
    monkeypatch.setattr(coco_metric, "COCOeval", Recorded)
    pipeline = [dict(type="LoadImage"), dict(type="LoadMultiTaskAnnotations"), dict(type="PackMultiTaskInputs")]
    loader = Runner.build_dataloader(
        dict(
            batch_size=1,
            num_workers=0,
            sampler=dict(type="DefaultSampler", shuffle=False),
            dataset=dict(
                type="BDD100KDataset", data_root=str(folder / "data"), split="val", test_mode=True, pipeline=pipeline
            ),
        )
    )
    metric = dict(
        type="MultiTaskMetric",
        tasks=dict(
            det=dict(type="mmdet.CocoMetric", metric="bbox", proposal_nums=(1, 10, 100)),
            sem_seg=dict(type="mmseg.IoUMetric"),
            drivable=dict(type="DrivableMetric"),
        ),
    )
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = METAINFO
    for batch in loader:
        sample = batch["data_samples"][0]
        found = samples[Path(sample.img_path).stem]
        sample.det.pred_instances = found.det.pred_instances
        for task in ("sem_seg", "drivable"):
            sample.task(task).pred_sem_seg = found.task(task).pred_sem_seg
        evaluator.process([sample], batch)
    numbers = evaluator.evaluate(len(samples))
    official = [golden["det"][name][1]["OVERALL"] / 100 for name in ("AP", "AP50", "AP75")]
    assert stats[0][:3].tolist() == pytest.approx(official, abs=1e-9)
    assert 0.3 < official[0] < 0.6
    # The tool's mean leaves out classes that the truth does not have; mmseg's has them as 0, like the tool's table.
    classes = golden["sem_seg"]["IoU"][0]
    assert numbers["sem_seg/mIoU"] == pytest.approx(sum(classes.values()) / 19, abs=0.01)
    average = golden["drivable"]["IoU"][1]["AVERAGE"]
    assert numbers["drivable/official_mIoU"] == pytest.approx(average, abs=0.01)


def test_a_submission_needs_the_classes_of_bdd100k(tmp_path: Path):
    with pytest.raises(MTAdaptError, match="BDD100K's tasks are det, sem_seg, drivable, the chosen ones are cls"):
        open_outputs(tmp_path, dict(cls=METAS["cls"]), [], draw=False, submission=True)
    other = dict(det=dict(classes=("car", "person")))
    with pytest.raises(MTAdaptError, match="task 'det' has the classes car, person, BDD100K's are pedestrian"):
        open_outputs(tmp_path, other, [], draw=False, submission=True)


def test_what_is_there_is_replaced_only_when_wanted(tmp_path: Path):
    def write(name: str, overwrite: bool, tasks: tuple[str, ...] = ("det",)) -> None:
        metas = {task: METAS[task] for task in tasks}
        outputs = open_outputs(tmp_path, metas, ["scalabel", "coco"], submission=True, overwrite=overwrite)
        outputs.add(make_frame(name), make_sample(), np.zeros((40, 60, 3), np.uint8))
        outputs.finish()

    write("a", overwrite=False, tasks=("det", "sem_seg"))
    with pytest.raises(MTAdaptError, match=r"predictions.json: is there already"):
        write("b", overwrite=False)
    write("b", overwrite=True)
    assert [frame["name"] for frame in json.loads((tmp_path / "predictions.json").read_text())["frames"]] == ["b.jpg"]
    assert [frame["name"] for frame in json.loads((tmp_path / "bdd100k/det.json").read_text())] == ["b.jpg"]
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["b.jpg"]
    assert [path.name for path in (tmp_path / "bdd100k").iterdir()] == ["det.json"]
    assert sorted(path.name for path in (tmp_path / "coco").iterdir()) == ["det.json", "images.json"]
    names = ["bdd100k", "coco", "pictures", "predictions.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    # What is there stays until what replaces it is complete.
    outputs = open_outputs(tmp_path, dict(det=METAS["det"]), ["scalabel", "coco"], submission=True, overwrite=True)
    outputs.add(make_frame("c"), make_sample(), np.zeros((40, 60, 3), np.uint8))
    outputs.abort()
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == ["b.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_an_interrupted_output_leaves_nothing_half(tmp_path: Path):
    outputs = open_outputs(tmp_path / "out", METAS, ["scalabel", "coco", "masks"], submission=False)
    picture = np.zeros((40, 60, 3), np.uint8)
    outputs.add(make_frame("v_000000", "v", 0), make_sample(), picture)
    outputs.add(make_frame("still"), make_sample(), picture)
    assert isinstance(outputs, OutputSet) and outputs.needs_pictures
    outputs.abort()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("pyav", "codecs"), [(True, ("h264", "avc1")), (False, ("mp4v", "FMP4"))])
def test_an_annotated_video_has_the_frames_of_the_video(tmp_path: Path, monkeypatch, pyav: bool, codecs: tuple):
    """Their number, rate, size and colours, whichever package writes it."""
    if pyav:
        pytest.importorskip("av", reason="the extra 'video' is not installed")
    else:
        monkeypatch.setattr("mtadapt.apis.outputs.video.find_spec", lambda _: None)
    outputs = open_outputs(tmp_path / "out", METAS, [])
    for number in range(6):
        picture = np.full((41, 61, 3), (40 * number, 100, 200 - 40 * number), np.int64).astype(np.uint8)
        if number == 5:
            picture = cv2.resize(picture, (122, 90))
        outputs.add(make_frame(f"v_{number:06d}", "v", number), make_sample(), picture)
    outputs.add(make_frame("still"), make_sample(), np.full((30, 30, 3), 200, np.uint8))
    outputs.finish()
    assert sorted(path.name for path in (tmp_path / "out/pictures").iterdir()) == ["still.jpg", "v.mp4"]
    capture = cv2.VideoCapture(str(tmp_path / "out/pictures/v.mp4"))
    assert int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode() in codecs
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    colours = []
    while (read := capture.read())[0]:
        assert read[1].shape == (40, 60, 3)
        colours.append(read[1].mean(axis=(0, 1))[::-1])
    expected = [(40 * number, 100, np.uint8(200 - 40 * number)) for number in range(5)] + [(200, 100, 0)]
    np.testing.assert_allclose(colours, expected, atol=12)


def test_a_video_that_cannot_be_written(tmp_path: Path, monkeypatch):
    (tmp_path / "v.mp4").mkdir()
    for find in (lambda _: True, lambda _: None):
        monkeypatch.setattr("mtadapt.apis.outputs.video.find_spec", find)
        with pytest.raises(
            MTAdaptError, match=r"v.mp4: cannot be written \(.*\); check the rights, or .*--no-pictures"
        ):
            VideoFile(tmp_path / "v.mp4", 10, (40, 60, 3))


def test_a_folder_that_cannot_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MTAdaptError, match=r"cannot be written .*; name another out_dir \(--out-dir\)"):
        open_outputs(tmp_path / "file" / "out", METAS)
