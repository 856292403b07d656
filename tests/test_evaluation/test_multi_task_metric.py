import copy
import json
import logging

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmpretrain.structures import DataSample
from pycocotools import coco
from pycocotools.cocoeval import COCOeval

from mtadapt.errors import MTAdaptError
from mtadapt.evaluation import MultiTaskMetric
from mtadapt.registry import METRICS

from .official_bdd100k import CLASSES, IGNORED, detection_frames, maps
from .samples import COCO, CONFIG, META, det_sample, evaluate, evaluator, mixed_samples, sample, seg_sample

NAMES = ["mAP", "mAP_50", "mAP_75", "mAP_s", "mAP_m", "mAP_l"]


def coco_numbers(frames: list[dict], folder) -> dict:
    """The numbers of pycocotools, from its own input files."""
    images = [{"id": i, "width": 1280, "height": 720, "file_name": f["name"]} for i, f in enumerate(frames, 1)]
    annotations, found = [], []
    for i, frame in enumerate(frames, 1):
        for name, crowd, (x1, y1, x2, y2) in frame["labels"]:
            box = [int(x1), int(y1), int(x2 - x1 + 1), int(y2 - y1 + 1)]
            category = CLASSES.index(IGNORED.get(name, name)) + 1
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": category, "bbox": box,
                                "area": box[2] * box[3], "iscrowd": int(crowd or name in IGNORED)})  # fmt: skip
        for name, score, (x1, y1, x2, y2) in frame["predictions"]:
            box = [int(x1), int(y1), int(x2 - x1 + 1), int(y2 - y1 + 1)]
            found.append({"image_id": i, "category_id": CLASSES.index(name) + 1, "bbox": box, "score": score})
    categories = [{"id": i, "name": name} for i, name in enumerate(CLASSES, 1)]
    (folder / "gt.json").write_text(
        json.dumps({"info": {}, "images": images, "annotations": annotations, "categories": categories})
    )
    truth = coco.COCO(str(folder / "gt.json"))
    judge = COCOeval(truth, truth.loadRes(found), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return {name: round(float(value), 3) for name, value in zip(NAMES, judge.stats[:6], strict=True)}


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)


@pytest.mark.parametrize("seed", [3, 4])
def test_det_against_pycocotools(seed, tmp_path):
    frames = detection_frames(seed)
    got = evaluate([sample(f["name"], det=det_sample(f, i)) for i, f in enumerate(frames)], {"det": COCO})
    assert got == {f"det/bbox_{name}": value for name, value in coco_numbers(frames, tmp_path).items()}
    assert 0.1 < got["det/bbox_mAP"] < got["det/bbox_mAP_50"] < 0.9


def test_sem_seg_by_hand():
    truth = np.array([[0, 0, 0, 1], [1, 1, 255, 2]])
    predicted = np.array([[0, 0, 1, 1], [1, 0, 2, 2]])
    meta = {"tasks": {"sem_seg": {"classes": ("a", "b", "c")}}}
    got = evaluate([sample("a.jpg", sem_seg=seg_sample(truth, predicted))], {"sem_seg": CONFIG["sem_seg"]}, meta=meta)
    # a: 2 of 4, b: 2 of 4, c: 1 of 1; 5 of 7 pixels.
    assert got["sem_seg/mIoU"] == pytest.approx(100 * (0.5 + 0.5 + 1) / 3, abs=0.005)
    assert got["sem_seg/aAcc"] == pytest.approx(100 * 5 / 7, abs=0.005)
    assert got["sem_seg/mAcc"] == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3, abs=0.005)


def test_sem_seg_against_bincount():
    pairs = maps(19, seed=7)
    matrix = np.zeros((19, 19), int)
    for truth, predicted in pairs:
        kept = truth != 255
        matrix += np.bincount(truth[kept].astype(int) * 19 + predicted[kept], minlength=361).reshape(19, 19)
    got = evaluate([sample(f"{i}.jpg", sem_seg=seg_sample(*pair)) for i, pair in enumerate(pairs)],
                   {"sem_seg": CONFIG["sem_seg"]})  # fmt: skip
    iou = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
    assert got["sem_seg/mIoU"] == pytest.approx(100 * iou.mean(), abs=0.00501)


def test_accuracy_by_hand():
    scores = [[0.1, 0.6, 0.3], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]]
    labels = [1, 1, 0, 0]
    samples = [
        sample(f"{i}.jpg", cls=DataSample().set_gt_label(label).set_pred_score(torch.tensor(score)))
        for i, (label, score) in enumerate(zip(labels, scores, strict=True))
    ]
    assert evaluate(samples, {"cls": CONFIG["cls"]}) == {"cls/top1": 50.0, "cls/top2": 75.0}


def test_names_of_all_tasks():
    assert set(evaluate(mixed_samples())) == {
        *(f"det/bbox_{name}" for name in NAMES),
        *(f"sem_seg/{name}" for name in ("aAcc", "mIoU", "mAcc")),
        *(f"drivable/official_{n}" for n in ("mIoU", "IoU_direct", "IoU_alternative", "mAcc", "fIoU", "pAcc")),
        *(
            f"drivable/strict_{n}"
            for n in ("mIoU", "mIoU_3", "IoU_direct", "IoU_alternative", "IoU_background", "pAcc")
        ),
        "cls/top1",
        "cls/top2",
    }


def test_a_sample_without_labels_never_reaches_the_metric():
    samples = mixed_samples()
    expected = evaluate(samples)
    changed = copy.deepcopy(samples)
    for one in changed:
        labelled = one.metainfo["labelled_tasks"]
        if "det" not in labelled:
            one.det.pred_instances.labels[:] = 0
            one.det.set_metainfo({"instances": []})
        if "sem_seg" not in labelled:
            one.sem_seg.pred_sem_seg.data[:] = 0
        if "drivable" not in labelled:
            one.drivable.pred_sem_seg.data[:] = 0
            one.drivable.gt_sem_seg.data[:] = 7  # an error if it is looked at
        if "cls" not in labelled:
            del one.cls
    assert equal(evaluate(changed), expected)
    # The same changes on labelled images are seen.
    samples[0].det.pred_instances.labels[:] = 0
    samples[0].drivable.pred_sem_seg.data[:] = 0
    samples[10].sem_seg.pred_sem_seg.data[:] = 0
    got = evaluate(samples)
    for name in ("det/bbox_mAP_50", "drivable/strict_mIoU", "drivable/official_mIoU", "sem_seg/mIoU"):
        assert got[name] != expected[name]


def test_order_batches_and_repeated_samples_do_not_matter():
    samples = mixed_samples()
    expected = evaluate(samples)
    assert equal(evaluate(samples[::-1], batch=5), expected)
    assert equal(evaluate(samples + samples[:5] + samples[:3], batch=1), expected)


def test_equal_scores_are_ordered_by_path(tmp_path):
    frames = detection_frames()
    for frame in frames:
        frame["predictions"] = [(name, 0.5, box) for name, _, box in frame["predictions"]]
    samples = [sample(f["name"], det=det_sample(f, 99 - i)) for i, f in enumerate(frames)]
    expected = {f"det/bbox_{name}": value for name, value in coco_numbers(frames, tmp_path).items()}
    assert evaluate(samples, {"det": COCO}) == evaluate(samples[::-1], {"det": COCO}) == expected
    assert coco_numbers(frames[::-1], tmp_path)["mAP_50"] != expected["det/bbox_mAP_50"]


def test_equal_names_in_two_folders_and_equal_img_ids_are_two_images(tmp_path):
    frames = detection_frames(images=4)
    samples = [
        sample(f"/{folder}/{frame['name']}", det=det_sample(frame, img_id=i))
        for folder, half in (("a", frames[:2]), ("b", frames[2:]))
        for i, frame in enumerate(half)
    ]
    for one, other in zip(samples[:2], samples[2:], strict=True):
        other.set_metainfo({"img_path": one.img_path.replace("/a/", "/b/")})
    assert evaluate(samples, {"det": COCO}) == {
        f"det/bbox_{name}": value for name, value in coco_numbers(frames, tmp_path).items()
    }


def test_evaluating_again_starts_afresh():
    samples = mixed_samples()
    made = evaluator()
    for part in (samples[:4] + samples[9:], samples[4:]):
        made.process(part)
        first = made.evaluate(len(part))
        assert equal(first, evaluate(part))
    metric = made.metrics[0]
    assert metric.results == [] and all(one.results == [] for several in metric.metrics.values() for one in several)


def test_the_truth_can_come_from_a_file(tmp_path):
    frames = detection_frames()
    expected = coco_numbers(frames, tmp_path)
    config = {"det": {**COCO, "ann_file": str(tmp_path / "gt.json")}}
    samples = [sample(f["name"], det=det_sample({**f, "labels": []}, i)) for i, f in enumerate(frames, 1)]
    made = evaluator(config)
    for _ in range(2):
        made.process(samples)
        assert made.evaluate(14) == {f"det/bbox_{name}": value for name, value in expected.items()}


def test_a_task_without_labelled_samples_is_warned_about(caplog, monkeypatch):
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, "handlers", [caplog.handler])
    monkeypatch.setattr(logger, "level", logging.WARNING)
    got = evaluate(mixed_samples()[12:])
    assert set(got) == {"cls/top1", "cls/top2"}
    for task in ("det", "sem_seg", "drivable"):
        assert f"task '{task}' has no labelled sample in this evaluation" in caplog.text
    assert "'cls'" not in caplog.text


def test_several_metrics_of_one_task():
    samples = mixed_samples()
    dice = {"type": "mmseg.IoUMetric", "iou_metrics": ["mDice"]}
    with pytest.raises(MTAdaptError, match="two metrics of task 'sem_seg' give a number named 'sem_seg/aAcc'"):
        evaluate(samples, {"sem_seg": [CONFIG["sem_seg"], dice]})
    got = evaluate(samples, {"sem_seg": [CONFIG["sem_seg"], {**dice, "prefix": "dice"}]})
    assert {"sem_seg/mIoU", "sem_seg/dice/mDice"} <= set(got)
    assert got["sem_seg/aAcc"] == got["sem_seg/dice/aAcc"]


def test_metainfo_of_the_image_completes_the_native_sample():
    frame = detection_frames(images=1)[0]
    native = det_sample(frame)
    expected = evaluate([sample("a.jpg", det=native)], {"det": COCO})
    bare = native.clone()
    del bare.img_id, bare.ori_shape
    one = sample("a.jpg", det=bare)
    one.set_metainfo({"ori_shape": (720, 1280)})
    assert evaluate([one], {"det": COCO}) == expected


class CollectsItself(BaseMetric):
    def process(self, data_batch, data_samples): ...

    def compute_metrics(self, results): ...

    def evaluate(self, size): ...


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({}, r"tasks={} of MultiTaskMetric: give a dict"),
        ({"det": {"metric": "bbox"}}, r"tasks\['det'\]=.* with a 'type'"),
        ({"det": {"type": "mmdet.KokoMetric"}}, r"tasks\['det'\]: 'KokoMetric' cannot be built: KokoMetric is not"),
        ({"det": {"type": "NoMetric"}}, r"tasks\['det'\]: 'NoMetric' cannot be built: NoMetric is not"),
        ({"det": {"type": "mmdet.CocoMetric", "metric": "box"}}, r"tasks\['det'\]: .*but got box"),
        ({"det": CollectsItself()}, r"CollectsItself collects its results in a way of its own"),
    ],
)
def test_wrong_metrics(metrics, message):
    with pytest.raises(MTAdaptError, match=message):
        MultiTaskMetric(metrics)


@pytest.mark.parametrize(
    ("meta", "message"),
    [
        ({"tasks": {"cls": {}, "drivable": {}}}, r"task 'det' of MultiTaskMetric .* known are \['cls', 'drivable'\]"),
        ({"classes": ("car",)}, "dataset_meta of MultiTaskMetric has no 'tasks'"),
        ([META, META], "dataset_meta of MultiTaskMetric has no 'tasks'"),
    ],
)
def test_wrong_meta(meta, message):
    with pytest.raises(MTAdaptError, match=message):
        MultiTaskMetric({"det": COCO}).dataset_meta = meta


def test_wrong_samples():
    metric = METRICS.build({"type": "MultiTaskMetric", "tasks": {"det": COCO}})
    frame = detection_frames(images=1)[0]
    with pytest.raises(MTAdaptError, match="dataset_meta of MultiTaskMetric is not set"):
        metric.process(None, [sample("a.jpg", det=det_sample(frame))])
    metric.dataset_meta = META
    with pytest.raises(MTAdaptError, match=r"'a.jpg' is labelled for task 'det', but the model returned nothing"):
        metric.process(None, [sample("a.jpg", labelled=("det",))])
    with pytest.raises(MTAdaptError, match=r"'a.jpg' has no metainfo 'labelled_tasks'"):
        metric.process(None, [{"img_path": "a.jpg"}])
    with pytest.raises(MTAdaptError, match="neither 'img_path' nor 'img_id'"):
        metric.process(None, [{"labelled_tasks": ("det",), "det": {}}])


def test_one_image_id_for_two_images_is_refused_with_a_file_of_annotations(tmp_path):
    (tmp_path / "gt.json").write_text('{"images": [], "annotations": [], "categories": []}')
    metric = MultiTaskMetric({"det": {**COCO, "ann_file": str(tmp_path / "gt.json")}})
    metric.dataset_meta = META
    prediction = {"img_id": 3, "bboxes": [], "labels": [], "scores": []}
    records = [("det", 0, path, (({}, prediction),)) for path in ("a/3.jpg", "b/3.jpg")]
    with pytest.raises(MTAdaptError, match=r"a/3.jpg and b/3.jpg have the same img_id 3: .* leave ann_file out"):
        metric.compute_metrics(records)
