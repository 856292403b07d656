import json
import math

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmseg.evaluation import IoUMetric

from mtadapt.errors import MTAdaptError
from mtadapt.evaluation import DrivableMetric
from mtadapt.evaluation.drivable_metric import confusion

from .official_bdd100k import GOLDEN, MAP_CASES, maps
from .samples import META, seg_sample


def numbers(pairs, metric=None) -> dict:
    made = Evaluator(metric or DrivableMetric())
    made.dataset_meta = META["tasks"]["drivable"]
    made.process([seg_sample(*pair) for pair in pairs])
    return made.evaluate(len(pairs))


def test_small_map_by_hand():
    truth = np.array([[0, 0, 0, 0], [1, 1, 2, 2], [2, 2, 255, 255]])
    predicted = np.array([[0, 0, 1, 2], [1, 0, 0, 1], [2, 2, 0, 1]])
    assert confusion(torch.tensor(predicted), torch.tensor(truth)).tolist() == [[2, 1, 1], [1, 1, 0], [1, 1, 2]]
    got = numbers([(truth, predicted)])
    expected = {
        # Six pixels count. direct: 2 hits, 2 misses, 1 alternative pixel; alternative: 1 hit, 1 miss, 1 direct pixel.
        "official_IoU_direct": 2 / 5,
        "official_IoU_alternative": 1 / 3,
        "official_mIoU": (2 / 5 + 1 / 3) / 2,
        "official_mAcc": (2 / 3 + 1 / 2) / 2,
        "official_fIoU": 2 / 5 * 4 / 6 + 1 / 3 * 2 / 6,
        "official_pAcc": 3 / 6,
        # Ten pixels count: one more false positive for each, and background 2 hits, 2 misses, 1 false positive.
        "strict_IoU_direct": 2 / 6,
        "strict_IoU_alternative": 1 / 4,
        "strict_IoU_background": 2 / 5,
        "strict_mIoU": (2 / 6 + 1 / 4) / 2,
        "strict_mIoU_3": (2 / 6 + 1 / 4 + 2 / 5) / 3,
        "strict_pAcc": 5 / 10,
    }
    assert got == pytest.approx({f"drivable/{name}": 100 * value for name, value in expected.items()}, abs=1e-9)


def test_direct_everywhere_is_perfect_for_the_official_tool_only():
    truth = np.full((10, 10), 2)
    truth[:2] = 0
    got = numbers([(truth, np.zeros_like(truth))])
    assert got["drivable/official_mIoU"] == 100
    assert got["drivable/strict_mIoU"] == pytest.approx(20)
    assert got["drivable/strict_mIoU_3"] == pytest.approx(10)


@pytest.mark.parametrize("case", [case for case, (task, _) in MAP_CASES.items() if task == "drivable"])
def test_official_tool(case):
    golden = json.loads(GOLDEN.read_text())[case]
    got = numbers(maps(**MAP_CASES[case][1]))
    expected = {
        "official_mIoU": golden["IoU"][1]["AVERAGE"],
        "official_mAcc": golden["Acc"][1]["AVERAGE"],
        "official_IoU_direct": golden["IoU"][0]["direct"],
        "official_IoU_alternative": golden["IoU"][0]["alternative"],
        "official_fIoU": golden["fIoU"],
        "official_pAcc": golden["pAcc"],
    }
    assert {name: got[f"drivable/{name}"] for name in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_random_maps_against_bincount_and_iou_metric(seed):
    pairs = maps(3, seed=seed)
    matrix = np.zeros((3, 3), int)
    for truth, predicted in pairs:
        kept = truth != 255
        matrix += np.bincount(truth[kept].astype(int) * 3 + predicted[kept], minlength=9).reshape(3, 3)
    assert sum(confusion(torch.tensor(p), torch.tensor(t)) for t, p in pairs).tolist() == matrix.tolist()
    got, stock = numbers(pairs), numbers(pairs, IoUMetric())
    assert got["drivable/strict_mIoU_3"] == pytest.approx(stock["mIoU"], abs=0.006)
    assert got["drivable/strict_pAcc"] == pytest.approx(stock["aAcc"], abs=0.006)


def test_values_beyond_the_classes():
    predicted, truth = torch.tensor([[0, 255, 7, 1]]), torch.tensor([[0, 0, 2, 1]])
    assert confusion(predicted, truth).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 1]]


def test_nothing_but_background():
    got = numbers([(np.full((4, 4), 2), np.full((4, 4), 2))])
    assert math.isnan(got["drivable/official_mIoU"]) and math.isnan(got["drivable/strict_mIoU"])
    assert got["drivable/strict_mIoU_3"] == got["drivable/strict_IoU_background"] == 100


def test_counts_beyond_int32():
    half = np.array([[2**30, 2**31, 0], [0, 2**31, 0], [0, 0, 2**31]])
    got = DrivableMetric().compute_metrics([half, half])
    assert got["official_mIoU"] == pytest.approx(100 * (1 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (np.zeros((4, 4)), np.zeros((4, 5)), r"prediction of size \(4, 5\), ground truth of size \(4, 4\)"),
        (np.full((4, 4), 3), np.zeros((4, 4)), r"holds the values \[3\]; known are 0, 1, 2 and 255"),
    ],
)
def test_wrong_maps(truth, predicted, message):
    with pytest.raises(MTAdaptError, match=message):
        numbers([(truth, predicted)])


def test_wrong_classes():
    metric = DrivableMetric()
    metric.dataset_meta = {"classes": ("drivable", "background")}
    with pytest.raises(MTAdaptError, match=r"the dataset's meta has \('drivable', 'background'\)"):
        metric.process(None, [])
