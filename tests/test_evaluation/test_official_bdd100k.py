"""The routes to the official numbers: CocoMetric for ``-t det`` and IoUMetric for ``-t sem_seg``."""

import json

import mmdet.evaluation.metrics.coco_metric as coco_metric
import pytest

from .official_bdd100k import GOLDEN, MAP_CASES, detection_frames, maps
from .samples import COCO, CONFIG, det_sample, evaluate, sample, seg_sample

NAMES = {"AP": "mAP", "AP50": "mAP_50", "AP75": "mAP_75", "APs": "mAP_s", "APm": "mAP_m", "APl": "mAP_l"}


@pytest.fixture
def golden() -> dict:
    return json.loads(GOLDEN.read_text())


@pytest.fixture
def stats(monkeypatch) -> list:
    """The unrounded numbers of every COCO evaluation; CocoMetric rounds to three digits."""
    seen: list = []

    class Recorded(coco_metric.COCOeval):
        def summarize(self):
            super().summarize()
            seen.append(self.stats)

    monkeypatch.setattr(coco_metric, "COCOeval", Recorded)
    return seen


def det_numbers(frames, config=COCO) -> dict:
    # Backwards, and all with the same img_id: the order must come from the path, the identity too.
    return evaluate([sample(frame["name"], det=det_sample(frame)) for frame in reversed(frames)], {"det": config})


def test_det(golden, stats):
    got = det_numbers(detection_frames())
    expected = [golden["det"][name][1]["OVERALL"] / 100 for name in NAMES]
    assert stats[0][:6].tolist() == pytest.approx(expected, abs=1e-12)
    assert got == {f"det/bbox_{name}": round(value, 3) for name, value in zip(NAMES.values(), expected, strict=True)}


def test_det_with_the_default_proposal_nums_counts_more_than_100_detections(golden, stats):
    det_numbers(detection_frames(), {"type": "mmdet.CocoMetric"})
    assert stats[0][0] == pytest.approx(golden["det"]["AP"][1]["OVERALL"] / 100, abs=1e-12)
    assert stats[0][1] > golden["det"]["AP50"][1]["OVERALL"] / 100 + 1e-6


def test_det_without_any_prediction(golden):
    got = det_numbers([{**frame, "predictions": []} for frame in detection_frames()])
    assert got == {f"det/bbox_{name}": golden["det_silent"][key][1]["OVERALL"] for key, name in NAMES.items()}
    assert set(got.values()) == {0.0}


def sem_seg_numbers(case: str, classes: list[str]) -> dict:
    pairs = maps(**MAP_CASES[case][1])
    samples = [sample(f"{i}.jpg", sem_seg=seg_sample(*pair)) for i, pair in enumerate(pairs)]
    return evaluate(samples, {"sem_seg": CONFIG["sem_seg"]}, meta={"tasks": {"sem_seg": {"classes": classes}}})


def test_sem_seg(golden):
    case = golden["sem_seg"]
    got = sem_seg_numbers("sem_seg", list(case["IoU"][0]))
    assert len(case["IoU"][0]) == 19
    assert got["sem_seg/mIoU"] == pytest.approx(case["IoU"][1]["AVERAGE"], abs=0.00501)
    assert got["sem_seg/aAcc"] == pytest.approx(case["pAcc"], abs=0.00501)


def test_sem_seg_with_a_class_that_no_image_has(golden):
    """The one difference: IoUMetric's mean has the class with an IoU of 0, the official mean leaves it out."""
    case = golden["sem_seg_absent"]
    got = sem_seg_numbers("sem_seg_absent", list(case["IoU"][0]))
    assert got["sem_seg/mIoU"] == pytest.approx(case["IoU"][1]["AVERAGE"] * 18 / 19, abs=0.00501)
    assert got["sem_seg/aAcc"] == pytest.approx(case["pAcc"], abs=0.00501)
