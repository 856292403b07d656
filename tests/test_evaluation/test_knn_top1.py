"""KNNTop1 against scikit-learn and the definition."""

from __future__ import annotations

import logging
import math

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger

from mtadapt.errors import MTAdaptError
from mtadapt.evaluation import KNNTop1, MultiTaskMetric
from mtadapt.evaluation.knn_top1 import predict_left_out
from mtadapt.structures import MultiTaskDataSample

from .multi_label import CLASSES, META, OWN, labelled, numbers


def clusters(images: int = 80, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings that overlap between classes, and the classes."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    centres = rng.standard_normal((classes, 8))
    # Lengths differ, which the cosine does not see.
    return (centres[labels] + 1.2 * rng.standard_normal((images, 8))) * rng.uniform(0.1, 9, (images, 1)), labels


def embedded(embeddings: np.ndarray, labels: np.ndarray) -> list[MultiTaskDataSample]:
    """Samples whose time of day is the class."""
    truth = np.full((len(labels), len(CLASSES)), -1)
    truth[:, :3] = np.eye(3)[labels]
    samples = labelled(truth)
    for each, row in zip(samples, torch.tensor(embeddings, dtype=torch.float32), strict=True):
        each.set_field(row, "embedding", dtype=torch.Tensor)
    return samples


def defined(embeddings: np.ndarray, labels: np.ndarray, k: int, temperature: float) -> list[int]:
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    predicted = []
    for i in range(len(unit)):
        similarity = {j: float(unit[i] @ unit[j]) for j in range(len(unit)) if j != i}
        votes = [0.0] * (labels.max() + 1)
        for j in sorted(similarity, key=lambda j: -similarity[j])[:k]:
            votes[labels[j]] += math.exp(similarity[j] / temperature)
        predicted.append(int(np.argmax(votes)))
    return predicted


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 1.0), (500, 0.5)])
def test_the_definition(k: int, temperature: float):
    embeddings, labels = clusters()
    expected = defined(embeddings, labels, k, temperature)
    for chunk in (7, 1024):
        got = predict_left_out(torch.tensor(embeddings), torch.tensor(labels), k, temperature, chunk)
        assert got.tolist() == expected
    number = numbers(KNNTop1("timeofday", k, temperature), embedded(embeddings, labels))
    assert number == {"probe/knn_timeofday": pytest.approx(100 * np.mean(expected == labels))}


@pytest.mark.parametrize("k", [3, 20])
def test_scikit_learn(k: int):
    neighbors = pytest.importorskip("sklearn.neighbors")
    embeddings, labels = clusters(60, seed=3)
    expected = []
    for i in range(len(labels)):
        others = np.arange(len(labels)) != i
        judge = neighbors.KNeighborsClassifier(k, metric="cosine", weights=lambda gap: np.exp((1 - gap) / 0.07))
        expected.append(int(judge.fit(embeddings[others], labels[others]).predict(embeddings[i : i + 1])[0]))
    got = predict_left_out(torch.tensor(embeddings), torch.tensor(labels), k, 0.07)
    assert got.tolist() == expected
    assert 0.5 < np.mean(np.array(expected) == labels) < 0.95


def test_images_without_one_class_are_left_out():
    embeddings, labels = clusters(30)
    samples = embedded(embeddings, labels)
    expected = numbers(KNNTop1("timeofday", 5), samples)
    more = embedded(*clusters(4, seed=1))
    more[0].mlc.gt_score[:3] = torch.tensor([0.0, 0, 0])
    more[1].mlc.gt_score[:3] = torch.tensor([-1.0, -1, -1])
    more[2].mlc.gt_score[:3] = torch.tensor([1.0, 0, 1])
    more[3].set_metainfo(dict(labelled_tasks=("det",)))
    assert numbers(KNNTop1("timeofday", 5), more + samples) == expected
    # One that has a label and does not know about the others has a class.
    for each in samples:
        each.mlc.gt_score[each.mlc.gt_score == 0] = -1
    assert numbers(KNNTop1("timeofday", 5), samples) == expected


def test_in_a_metric_of_several_tasks_and_in_half_precision():
    samples = embedded(*clusters(30))
    expected = numbers(KNNTop1("timeofday"), samples)["probe/knn_timeofday"]
    metric = MultiTaskMetric({"mlc": {"type": "KNNTop1", "group": "timeofday"}})
    assert numbers(metric, samples) == {"mlc/knn_timeofday": expected}
    for each in samples:
        each.embedding = each.embedding.bfloat16()
    assert numbers(KNNTop1("timeofday"), samples)["probe/knn_timeofday"] == pytest.approx(expected, abs=10)


def test_small_temperatures_do_not_overflow():
    embeddings, labels = clusters(40)
    got = predict_left_out(torch.tensor(embeddings).float(), torch.tensor(labels), 20, 1e-4)
    assert got.tolist() == defined(embeddings, labels, 1, 1.0)


@pytest.mark.parametrize(("images", "classes"), [(1, 1), (5, 1), (0, 0)])
def test_nothing_to_tell_apart(
    images: int, classes: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    samples = embedded(*clusters(5))
    for number, each in enumerate(samples):
        each.mlc.gt_score[:3] = torch.tensor([float(number < images), 0, 0])
    monkeypatch.setattr(MMLogger.get_current_instance(), "handlers", [caplog.handler])
    monkeypatch.setattr(MMLogger.get_current_instance(), "level", logging.WARNING)
    assert numbers(KNNTop1("timeofday"), samples) == {}
    (record,) = [record for record in caplog.records if "KNNTop1" in record.message]
    assert f"'timeofday': {images} of 5 images have one label of it, of {classes} classes" in record.message


def test_two_images_of_two_classes_vote_for_each_other():
    assert numbers(KNNTop1("timeofday"), embedded(np.eye(2), np.array([0, 1]))) == {"probe/knn_timeofday": 0.0}


def test_an_embedding_that_is_no_number_shows():
    embeddings, labels = clusters(10)
    embeddings[4, 2] = np.nan
    assert math.isnan(numbers(KNNTop1("timeofday"), embedded(embeddings, labels))["probe/knn_timeofday"])


@pytest.mark.parametrize(
    ("group", "classes", "message"),
    [
        ("scene", CLASSES, r"group='scene' .*: no label is named 'scene=...'; exclusive groups are timeofday, weather"),
        ("objects", CLASSES, r"group='objects' .*: that is a kind, .* exclusive groups are timeofday, weather"),
        ("timeofday=day", CLASSES, r"no label is named 'timeofday=day=...'"),
        ("scene", ("car", "bus"), r"no label is named 'scene=...'; no label is of an exclusive group"),
    ],
)
def test_wrong_groups_are_refused_before_the_first_validation(group: str, classes: tuple, message: str):
    for meta in (dict(OWN, classes=classes), {"tasks": {"mlc": dict(OWN, classes=classes)}}):
        with pytest.raises(MTAdaptError, match=message):
            KNNTop1(group).dataset_meta = meta


@pytest.mark.parametrize(
    ("settings", "message"), [({"k": 0}, "k=0 of KNNTop1"), ({"temperature": 0.0}, "temperature=0.0 of KNNTop1")]
)
def test_wrong_settings(settings: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        KNNTop1("timeofday", **settings)


def test_a_model_without_embeddings():
    with pytest.raises(MTAdaptError, match=r"/images/000.jpg: the model returned no 'embedding'"):
        numbers(KNNTop1("timeofday"), labelled(np.zeros((2, len(CLASSES)))), meta=META)
