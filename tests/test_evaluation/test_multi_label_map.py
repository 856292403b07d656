"""MultiLabelMAP against scikit-learn, mmpretrain and the definition."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.evaluation import AveragePrecision

from mtadapt.errors import MTAdaptError
from mtadapt.evaluation import MultiLabelMAP, MultiTaskMetric
from mtadapt.evaluation.multi_label_map import average_precision, label_precisions

from .multi_label import CLASSES, KINDS, META, OWN, labelled, native, numbers, random_labels
from .samples import sample


def defined(scores: np.ndarray, positive: np.ndarray) -> float:
    """Sum over the thresholds, from high to low, of the precision times the recall that is gained."""
    total, recall = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        found = scores >= threshold
        gained = positive[found].sum() / positive.sum()
        total += (gained - recall) * positive[found].mean()
        recall = gained
    return total


def expected(truth: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    values = [defined(s[t >= 0], t[t >= 0] == 1) for t, s in zip(truth.T, scores.T, strict=True)]
    ranges = {"mAP": (0, 9), **{f"mAP_{kind}": span for kind, span in KINDS.items()}}
    return {f"mlc/{name}": 100 * float(np.mean(values[start:stop])) for name, (start, stop) in ranges.items()}


@pytest.mark.parametrize("seed", range(3))
def test_unknown_labels_and_equal_scores_against_the_definition(seed: int):
    truth, scores = random_labels(seed=seed)
    got = numbers(MultiLabelMAP(), labelled(truth, scores))
    assert got == pytest.approx(expected(truth, scores), abs=1e-4)
    assert 40 < got["mlc/mAP"] < 90


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("digits", [1, 9])
def test_one_label_against_scikit_learn(seed: int, digits: int):
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(seed)
    positive, scores = rng.random(50) < 0.3, rng.random(50).round(digits)
    assert average_precision(scores, positive) == pytest.approx(metrics.average_precision_score(positive, scores))


@pytest.mark.parametrize("unknown", [0.0, 0.3])
def test_distinct_scores_against_mmpretrain(unknown: float):
    truth, _ = random_labels(unknown=unknown)
    scores = np.random.default_rng(5).random(truth.shape)
    stock = AveragePrecision.calculate(torch.tensor(scores), torch.tensor(truth), average=None)
    assert 100 * np.array(label_precisions(truth, scores)) == pytest.approx(stock.numpy(), abs=1e-3)


def test_equal_scores_earn_nothing_by_the_order_of_the_images():
    truth, scores = np.array([[1.0], [1], [0], [0]]), np.full((4, 1), 0.5)
    assert label_precisions(truth, scores) == [0.5] == label_precisions(truth[::-1], scores)
    assert AveragePrecision.calculate(torch.tensor(scores), torch.tensor(truth)) == 100


def test_labels_that_nothing_can_be_said_about_are_left_out(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    truth, scores = random_labels()
    truth[:, 0] = 1  # every image has it
    truth[:, 5] = np.where(truth[:, 5] == 1, -1, truth[:, 5])  # no image has it
    truth[:, 7:] = -1  # nobody knows
    samples = labelled(truth, scores)
    metric = MultiLabelMAP()
    monkeypatch.setattr(MMLogger.get_current_instance(), "handlers", [caplog.handler])
    monkeypatch.setattr(MMLogger.get_current_instance(), "level", logging.WARNING)
    got = numbers(metric, samples)
    assert numbers(metric, samples) == got
    values = np.array([value for value in label_precisions(truth, scores.astype(np.float32)) if value is not None])
    assert len(values) == 5
    assert got == pytest.approx(
        {
            "mlc/mAP": 100 * values.mean(),
            "mlc/mAP_style": 100 * values[:3].mean(),
            "mlc/mAP_objects": 100 * values[3:].mean(),
        }
    )
    (record,) = [record for record in caplog.records if "leaves out" in record.message]
    assert "leaves out 4 labels" in record.message
    assert record.message.endswith(": timeofday=day, bus, car left of bus, person above car")


def test_meta_of_one_task_without_kinds():
    truth, scores = random_labels()
    got = numbers(MultiLabelMAP(), labelled(truth, scores), meta={"classes": CLASSES})
    assert got == {"mlc/mAP": pytest.approx(expected(truth, scores)["mlc/mAP"], abs=1e-4)}


def test_in_a_metric_of_several_tasks_and_on_native_samples():
    truth, scores = random_labels(20)
    samples = labelled(truth, scores)
    alone = numbers(MultiLabelMAP(), samples)
    assert numbers(MultiTaskMetric({"mlc": {"type": "MultiLabelMAP"}}), samples) == alone
    assert numbers(MultiLabelMAP(), [each.mlc for each in samples], meta=OWN) == alone
    # Elements inside of a dict, as some loops leave them.
    assert numbers(MultiLabelMAP(), [{"mlc": each.mlc} for each in samples]) == alone


def test_images_that_are_labelled_for_other_tasks_know_nothing():
    truth, scores = random_labels(20)
    samples = labelled(truth, scores)
    others = [sample(f"/other/{i}.jpg", ("det",), mlc=native(1 - truth[0].clip(0), scores[0])) for i in range(3)]
    assert numbers(MultiLabelMAP(), samples + others) == numbers(MultiLabelMAP(), samples)


def test_a_score_that_is_no_number_shows():
    truth, scores = random_labels(20, unknown=0)
    scores[3, 0] = np.nan
    got = numbers(MultiLabelMAP(), labelled(truth, scores))
    assert math.isnan(got["mlc/mAP"]) and math.isnan(got["mlc/mAP_style"]) and got["mlc/mAP_objects"] > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(gt_score=np.zeros(8)), r"/a.jpg: gt_score must hold 1, 0 or -1 for each .* 9 labels; .* shape \(8,\)"),
        (dict(gt_score=np.full(9, 2)), r"/a.jpg: gt_score must hold 1, 0 or -1 .* the values \[2.0\]"),
        (dict(pred_score=np.zeros(5)), r"/a.jpg: the model gives scores of shape \(5,\), the dataset has 9 labels"),
        (dict(pred_score=None), r"/a.jpg: the model returned no 'pred_score' .* switch its multi_label branch on"),
    ],
)
def test_samples_that_do_not_fit(changed: dict, message: str):
    values = dict(gt_score=np.zeros(9), pred_score=np.zeros(9)) | changed
    with pytest.raises(MTAdaptError, match=message):
        numbers(MultiLabelMAP(), [{"img_path": "/a.jpg", "labelled_tasks": ("mlc",), "mlc": values}])


@pytest.mark.parametrize("meta", [{}, {"tasks": {"det": OWN}}])
def test_a_dataset_without_labels(meta: dict):
    with pytest.raises(
        MTAdaptError, match=r"MultiLabelMAP: the dataset's metainfo has no 'classes' for the task 'mlc'"
    ):
        numbers(MultiLabelMAP(), labelled(*random_labels(2)), meta=meta)


def test_an_image_without_ground_truth():
    with pytest.raises(MTAdaptError, match=r"/a.jpg has no 'gt_score': its pipeline must end with PackPretrainInputs"):
        numbers(MultiLabelMAP(), [sample("/a.jpg", ("mlc",))], meta=META)
