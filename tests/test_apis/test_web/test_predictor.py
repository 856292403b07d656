"""What the page shows, against the predictions themselves."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from mtadapt.apis import MultiTaskInferencer
from mtadapt.apis.web import Prediction, Predictor
from mtadapt.datasets.scalabel import read_boxes
from mtadapt.errors import MTAdaptError
from tests.test_apis.test_web.conftest import Trained

TASKS = ("det", "sem_seg", "drivable")


@pytest.fixture(scope="module")
def image(trained: Trained) -> np.ndarray:
    return cv2.imread(str(next(iter(sorted(trained.examples.iterdir())))))


@pytest.fixture(scope="module")
def shown(predictor: Predictor, image: np.ndarray) -> Prediction:
    return predictor.predict("a.jpg", image)


def semantic(prediction: Prediction) -> torch.Tensor:
    return prediction.sample.sem_seg.pred_sem_seg.data


def test_predictions_are_those_of_the_inferencer(
    inferencer: MultiTaskInferencer, image: np.ndarray, shown: Prediction
) -> None:
    expected = inferencer.predict_image(image)
    assert semantic(shown).equal(expected.sem_seg.pred_sem_seg.data.to(torch.uint8))
    assert shown.sample.det.pred_instances.bboxes.equal(expected.det.pred_instances.bboxes)


def test_boxes(predictor: Predictor, shown: Prediction) -> None:
    instances = shown.sample.det.pred_instances
    threshold = float(instances.scores.median())
    rows = predictor.boxes(shown, TASKS, threshold)
    assert len(rows) == int((instances.scores >= threshold).sum()) > 0
    scores = [row[2] for row in rows]
    assert scores == sorted(scores, reverse=True)
    best = int(instances.scores.argmax())
    left, top, right, bottom = instances.bboxes[best].tolist()
    expected = [round(left, 1), round(top, 1), round(right - left, 1), round(bottom - top, 1)]
    assert rows[0][3:] == pytest.approx(expected, abs=0.11) and rows[0][0] == "det"
    assert predictor.boxes(shown, ("sem_seg",), 0.0) == [] == predictor.boxes(shown, TASKS, 1.1)


def test_shares_are_counts_of_pixels(predictor: Predictor, shown: Prediction) -> None:
    rows = predictor.shares(shown, ("sem_seg",))
    classes = predictor.prompts["sem_seg"]
    ids = semantic(shown).numpy()
    expected = {classes[value]: f"{100 * (ids == value).mean():.1f} %" for value in np.unique(ids)}
    assert {name: share for _, name, share in rows} == expected
    assert {row[0] for row in predictor.shares(shown, TASKS)} == {"sem_seg", "drivable"}


def test_document_is_read_as_scalabel(predictor: Predictor, shown: Prediction, tmp_path: Path) -> None:
    import json

    threshold = float(shown.sample.det.pred_instances.scores.median())
    document = predictor.document(shown, TASKS, threshold)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document))
    ids = {name: number for number, name in enumerate(predictor.prompts["det"])}
    detections = [label for label in document["frames"][0]["labels"] if "box2d" in label]
    document["frames"][0]["labels"] = detections
    path.write_text(json.dumps(document))
    boxes, bad = read_boxes(path, ids, {}, skip_bad=False)
    assert bad == 0 and boxes["a"].num == len(predictor.boxes(shown, TASKS, threshold)) > 0
    assert {
        label["attributes"]["task"] for label in predictor.document(shown, ("drivable",), 0.0)["frames"][0]["labels"]
    } == {"drivable"}


def test_a_smaller_copy_is_told_in_pixels_of_the_file(
    predictor: Predictor, image: np.ndarray, shown: Prediction
) -> None:
    """Also where the copy's sides are rounded, and the factors are two."""
    width, height = image.shape[1::-1]
    large = predictor.predict("a.jpg", image, size=(width * 3, height * 2))
    assert large.sample.det.pred_instances.bboxes.equal(shown.sample.det.pred_instances.bboxes)
    before, after = (predictor.boxes(one, TASKS, 0.05) for one in (shown, large))
    assert [row[:3] for row in after] == [row[:3] for row in before] != []
    assert np.allclose([row[3:] for row in after], [np.multiply(row[3:], (3, 2, 3, 2)) for row in before], atol=0.25)
    (small,), (frame,) = (predictor.document(one, TASKS, 0.05)["frames"] for one in (shown, large))
    assert frame["size"] == dict(width=width * 3, height=height * 2)
    assert len(frame["labels"]) == len(small["labels"]) and frame["attributes"] == small["attributes"]
    for one, other in zip(frame["labels"], small["labels"], strict=True):
        assert one["category"] == other["category"] and one.get("score") == other.get("score")
        if "box2d" in one:
            assert one["box2d"]["x1"] == pytest.approx(other["box2d"]["x1"] * 3)
            assert one["box2d"]["y2"] + 1 == pytest.approx((other["box2d"]["y2"] + 1) * 2)
        else:
            expected = coco_mask.decode(other["rle"]).repeat(2, axis=0).repeat(3, axis=1)
            assert (coco_mask.decode(one["rle"]) == expected).all()
    assert (predictor.draw(large, TASKS, 0.3, 0.5) == predictor.draw(shown, TASKS, 0.3, 0.5)).all()


def test_draw(predictor: Predictor, inferencer: MultiTaskInferencer, image: np.ndarray, shown: Prediction) -> None:
    before = inferencer.visualizer.alpha
    opaque, half = (predictor.draw(shown, ("sem_seg",), 0.3, opacity) for opacity in (1.0, 0.5))
    assert opaque.shape == half.shape and (opaque != half).any()
    assert inferencer.visualizer.alpha == before
    assert (predictor.draw(shown, (), 0.3, 0.5) == image[..., ::-1]).all()


def test_other_names_change_the_prediction_of_one_visitor_alone(
    inferencer: MultiTaskInferencer, predictor: Predictor, image: np.ndarray, shown: Prediction
) -> None:
    assert predictor.fixed == ""
    names = {"sem_seg": ["zebra", *predictor.prompts["sem_seg"][1:]]}
    other = predictor.predict("a.jpg", image, names)
    assert other.renamed == ("zebra for road",) and shown.renamed == ()
    assert not semantic(other).equal(semantic(shown))
    again = predictor.predict("a.jpg", image)
    assert semantic(again).equal(semantic(shown))
    assert again.sample.det.pred_instances.scores.equal(shown.sample.det.pred_instances.scores)
    # Nor does it reach who shares the model without the page.
    predictor.predict("a.jpg", image, names)
    assert inferencer.predict_image(image).sem_seg.pred_sem_seg.data.equal(semantic(shown).long())
    spaced = {"sem_seg": [f" {name} " for name in predictor.prompts["sem_seg"]]}
    assert semantic(predictor.predict("a.jpg", image, spaced)).equal(semantic(shown))


def test_refused_names_leave_nothing_behind(predictor: Predictor, image: np.ndarray, shown: Prediction) -> None:
    """The first task's names are good, the second's are not."""
    names = {"det": ["zebra", *predictor.prompts["det"][1:]], "sem_seg": ["", *predictor.prompts["sem_seg"][1:]]}
    with pytest.raises(MTAdaptError, match="is no text"):
        predictor.predict("a.jpg", image, names)
    again = predictor.predict("a.jpg", image)
    assert semantic(again).equal(semantic(shown))
    assert again.sample.det.pred_instances.scores.equal(shown.sample.det.pred_instances.scores)


def test_visitors_at_once(predictor: Predictor, image: np.ndarray, shown: Prediction) -> None:
    names = {"sem_seg": ["zebra", *predictor.prompts["sem_seg"][1:]]}
    expected = {0: semantic(shown), 1: semantic(predictor.predict("a.jpg", image, names))}
    found: dict[int, torch.Tensor] = {}

    def visit(number: int) -> None:
        found[number] = semantic(predictor.predict("a.jpg", image, names if number % 2 else {}))

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6 and all(ids.equal(expected[number % 2]) for number, ids in found.items())


def test_names_that_no_encoder_here_can_encode(
    inferencer: MultiTaskInferencer, image: np.ndarray, shown: Prediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mtadapt.models.text.sentence_encoder.find_spec", lambda name: None)
    fixed = Predictor(inferencer)
    assert fixed.fixed.startswith("The names cannot be changed: SentenceTextEncoder needs the extra 'text'")
    assert semantic(fixed.predict("a.jpg", image)).equal(semantic(shown))


def test_a_model_without_the_adapter(inferencer: MultiTaskInferencer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inferencer.model, "modules", lambda: iter(()))
    plain = Predictor(inferencer)
    assert plain.prompts == {} and plain.fixed.startswith("This model has no LV-Adapter")
