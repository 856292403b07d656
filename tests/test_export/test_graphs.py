"""Graphs in PyTorch against the stock models' own predictions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from mmdet.models.layers import multiclass_nms
from mmengine.config import ConfigDict

from mtadapt.errors import MTAdaptError
from mtadapt.export import MultiTaskGraph, compare, stock_predictions
from mtadapt.export.parity import _StableSort
from tests.models import classifier, dino, faster_rcnn, fcos, fpn_head, multi_task_model, rtmdet, sparse_rcnn, uper_head
from tests.test_export.models import atss, fcos_of_points, images, retinanet, retinanet_with_softmax, spread_model

KEYS, STOCK_KEYS = ("boxes", "scores", "labels"), ("bboxes", "scores", "labels")
DETECTORS = [faster_rcnn, fcos, fcos_of_points, retinanet, retinanet_with_softmax, atss, rtmdet]


def _graph(model, **options) -> MultiTaskGraph:
    return MultiTaskGraph(model, **options).eval()


@torch.no_grad()
def _run(graph: MultiTaskGraph, pixels: np.ndarray) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in graph(torch.from_numpy(pixels)).items()}


@pytest.mark.parametrize("make", DETECTORS)
@pytest.mark.parametrize("size", [(128, 160), (70, 97)])
def test_a_detector_gives_the_stock_boxes(make: Callable[[], ConfigDict], size: tuple[int, int]):
    """Also of an image with padding, and each image of a batch what it gives alone."""
    model = spread_model(det=make())
    graph = _graph(model)
    pixels = images(2, *size)
    together = _run(graph, pixels)
    for number, image in enumerate(pixels):
        batched = {name: value[number : number + 1] for name, value in together.items()}
        for outputs in (_run(graph, image[None]), batched):
            (found,) = compare(model, lambda _, outputs=outputs: outputs, image, "noise", ["det"])
            assert found.value < 1e-3, found
            assert int(found.compared.split()[0]) > 5, found


def test_what_is_not_there_is_marked():
    model = spread_model(det=faster_rcnn())
    threshold = float(_run(_graph(model), images(1, 96, 96))["det_scores"][0][:20].mean())
    model.tasks.det.roi_head.test_cfg.score_thr = threshold
    graph = _graph(model)
    found = _run(graph, images(1, 96, 96))
    missing = found["det_labels"][0] < 0
    count = int((~missing).sum())
    assert 0 < count < 100 and not missing[:count].any()
    assert (found["det_labels"][0][missing] == -1).all()
    assert not found["det_scores"][0][missing].any() and not found["det_boxes"][0][missing].any()
    scores = found["det_scores"][0]
    assert (np.diff(scores) <= 0).all() and scores[count - 1] > threshold
    model.tasks.det.roi_head.test_cfg.score_thr = 1.0
    assert (_run(_graph(model), images(1, 96, 96))["det_labels"] == -1).all()


def test_class_agnostic_suppression():
    own = faster_rcnn()
    own.test_cfg.rcnn.update(max_per_img=1000)
    own.test_cfg.rcnn.nms.class_agnostic = True
    model = spread_model(det=own)
    (found,) = compare(model, lambda one: _run(_graph(model), one), images(1, 96, 128)[0], "noise", ["det"])
    assert found.value < 1e-3
    agnostic = int(found.compared.split()[0])
    model.tasks.det.roi_head.test_cfg.nms.class_agnostic = False
    (found,) = compare(model, lambda one: _run(_graph(model), one), images(1, 96, 128)[0], "noise", ["det"])
    assert 0 < agnostic < int(found.compared.split()[0])


@pytest.mark.parametrize("agnostic", [False, True])
def test_raw_boxes_of_a_roi_head_suppressed_by_mmdet(agnostic: bool):
    own = faster_rcnn()
    own.roi_head.bbox_head.reg_class_agnostic = agnostic
    model = spread_model(det=own)
    image = images(1, 96, 131)[0]
    found = _run(_graph(model, postprocess=False), image[None])
    boxes, scores = torch.from_numpy(found["det_boxes"][0]), torch.from_numpy(found["det_scores"][0])
    assert boxes.shape[1] == (1 if agnostic else 10)
    settings = own.test_cfg.rcnn
    padded = torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)
    kept, labels = multiclass_nms(boxes.flatten(1), padded, settings.score_thr, settings.nms, settings.max_per_img)
    _assert_same_boxes(model, image, kept, labels)


def test_raw_boxes_of_a_dense_head_suppressed_by_mmdet():
    own = fcos()
    own.test_cfg.update(score_thr=0.0, nms_pre=10**6)
    model = spread_model(det=own)
    image = images(1, 64, 70)[0]
    found = _run(_graph(model, postprocess=False), image[None])
    boxes, scores = torch.from_numpy(found["det_boxes"][0]), torch.from_numpy(found["det_scores"][0])
    there = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)  # the stock head leaves boxes without area out
    boxes, scores = boxes[there], scores[there]
    padded = torch.cat([scores, scores.new_zeros(len(scores), 1)], dim=1)
    kept, labels = multiclass_nms(boxes, padded, 0.0, own.test_cfg.nms, own.test_cfg.max_per_img)
    _assert_same_boxes(model, image, kept, labels)


def _assert_same_boxes(model, image: np.ndarray, kept: torch.Tensor, labels: torch.Tensor) -> None:
    stock = stock_predictions(model, image, ["det"])["det"].pred_instances
    assert len(stock) == len(kept) > 5
    torch.testing.assert_close(kept[:, :4], stock.bboxes, atol=1e-3, rtol=0)
    torch.testing.assert_close(kept[:, 4], stock.scores, atol=1e-4, rtol=0)
    assert labels.equal(stock.labels)


@pytest.mark.parametrize("make", [fpn_head, uper_head])
@pytest.mark.parametrize("size", [(64, 96), (70, 97)])
def test_a_segmentor_gives_the_stock_classes_and_logits(make: Callable[[], ConfigDict], size: tuple[int, int]):
    model = spread_model(sem_seg=make())
    pixels = images(2, *size)
    stock = [stock_predictions(model, image, ["sem_seg"])["sem_seg"] for image in pixels]
    classes = _run(_graph(model), pixels)["sem_seg_classes"]
    assert classes.dtype == np.uint8 and len(np.unique(classes)) > 2
    logits = _run(_graph(model, postprocess=False), pixels)["sem_seg_logits"]
    for number, native in enumerate(stock):
        np.testing.assert_allclose(logits[number], native.seg_logits.data.numpy(), atol=1e-4)
        assert (classes[number] == native.pred_sem_seg.data[0].numpy()).mean() > 0.9999


def test_a_segmentor_of_one_class():
    own = fpn_head(num_classes=1)
    own.decode_head.update(out_channels=1, threshold=0.4, loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=True))
    model = spread_model(sem_seg=own)
    image = images(1, 70, 97)[0]
    native = stock_predictions(model, image, ["sem_seg"])["sem_seg"]
    classes = _run(_graph(model), image[None])["sem_seg_classes"][0]
    assert 0.01 < classes.mean() < 0.99
    assert (classes == native.pred_sem_seg.data[0].numpy()).all()


def test_a_classifier_gives_the_stock_scores():
    model = spread_model(cls=classifier())
    pixels = images(3, 64, 96)
    found = _run(_graph(model), pixels)
    logits = _run(_graph(model, postprocess=False), pixels)["cls_logits"]
    for number, image in enumerate(pixels):
        native = stock_predictions(model, image, ["cls"])["cls"]
        np.testing.assert_allclose(found["cls_scores"][number], native.pred_score.numpy(), atol=1e-5)
        assert found["cls_labels"][number] == int(native.pred_label)
        np.testing.assert_allclose(torch.from_numpy(logits[number]).softmax(0), native.pred_score, atol=1e-5)


def test_the_comparison_is_with_what_the_model_predicts():
    """The predictions that files are compared with are those of the whole model."""
    model = spread_model(det=faster_rcnn(), sem_seg=fpn_head(), cls=classifier())
    image = images(1, 70, 97)[0]
    pixels = torch.from_numpy(image.transpose(2, 0, 1).copy())
    with torch.no_grad():
        data = model.data_preprocessor(dict(inputs=[pixels], data_samples=None), False)
        (sample,) = model.predict(data["inputs"], data["data_samples"])
    own = stock_predictions(model, image, ["det", "sem_seg", "cls"])
    assert own["det"].pred_instances.bboxes.equal(sample.det.pred_instances.bboxes)
    assert own["det"].pred_instances.scores.equal(sample.det.pred_instances.scores)
    assert own["sem_seg"].pred_sem_seg.data.equal(sample.sem_seg.pred_sem_seg.data)
    assert own["cls"].pred_score.equal(sample.cls.pred_score)


def test_a_difference_is_found():
    """Of a box, of a label, of a missing box, of a map and of a score."""
    model = spread_model(det=faster_rcnn(), sem_seg=fpn_head(), cls=classifier())
    graph = _graph(model)
    image = images(1, 96, 128)[0]
    right = _run(graph, image[None])
    names = ["det", "sem_seg", "cls"]

    def values(**changes: np.ndarray) -> list[float]:
        return [each.value for each in compare(model, lambda _: {**right, **changes}, image, "noise", names)]

    assert max(values()) < 1e-3
    boxes, labels, classes = (right[key].copy() for key in ("det_boxes", "det_labels", "sem_seg_classes"))
    boxes[0, 2, 0] += 0.5
    assert values(det_boxes=boxes)[0] == pytest.approx(0.5, abs=1e-3)
    labels[0, 1] = (labels[0, 1] + 1) % 10
    assert values(det_labels=labels)[0] == float("inf")
    labels[0, 1] = -1
    assert values(det_labels=labels)[0] == float("inf")
    classes[0, 3:6] = (classes[0, 3:6] + 1) % 19
    assert values(sem_seg_classes=classes)[1] > 0.01
    assert values(cls_scores=right["cls_scores"] + 0.1)[2] == pytest.approx(0.1, abs=1e-3)


def test_equal_scores_in_either_order():
    """Which of the boxes is kept, is open; a box that neither order has is a difference."""
    values = torch.tensor([0.5, 0.9, 0.5, 0.9] * 500)
    with _StableSort():
        orders = [values.sort(descending=True)[1], torch.sort(values, 0, True)[1], values.sort(0, True).indices]
    expected = torch.cat([torch.arange(1, 2000, 2), torch.arange(0, 2000, 2)])
    assert all(order.equal(expected) for order in orders)
    own = fcos()
    own.test_cfg.update(nms_pre=50, max_per_img=20, score_thr=0.0)
    model = spread_model(det=own)
    torch.nn.init.zeros_(model.tasks.det.bbox_head.conv_cls.weight)
    torch.nn.init.zeros_(model.tasks.det.bbox_head.conv_centerness.weight)
    image = images(1, 96, 128)[0]
    with _StableSort():
        ordered = stock_predictions(model, image, ["det"])["det"].pred_instances
    assert len(ordered) > 5 and len(ordered.scores.unique()) == 1
    found = {f"det_{name}": ordered[key].numpy()[None] for name, key in zip(KEYS, STOCK_KEYS, strict=True)}
    (right,) = compare(model, lambda _: found, image, "noise", ["det"])
    assert right.value < 1e-3
    found["det_boxes"] = found["det_boxes"].copy()
    found["det_boxes"][0, 3, 0] += 0.5
    (wrong,) = compare(model, lambda _: found, image, "noise", ["det"])
    assert wrong.value > 0.4


@pytest.mark.parametrize("make", [dino, sparse_rcnn])
def test_detectors_without_a_graph_are_refused(make: Callable[[], ConfigDict]):
    model = spread_model(det=make())
    with pytest.raises(
        MTAdaptError, match=r"task 'det': \w+ (predicts in a way|has a predict\w* ).*of its own.*--tasks"
    ):
        MultiTaskGraph(model)


def test_other_tasks_without_a_graph_are_refused():
    several = classifier()
    several.head.update(type="MultiLabelLinearClsHead", loss=dict(type="CrossEntropyLoss", use_sigmoid=True))
    with pytest.raises(MTAdaptError, match=r"task 'cls': ImageClassifier with MultiLabelLinearClsHead .*one label"):
        MultiTaskGraph(multi_task_model(cls=several))
    cascade = fpn_head()
    first = dict(cascade.decode_head, type="FCNHead", in_channels=32, in_index=0, num_convs=1)
    first.pop("feature_strides")
    second = dict(first, type="OCRHead", ocr_channels=8)
    second.pop("num_convs")
    cascade.update(type="CascadeEncoderDecoder", num_stages=2, decode_head=[first, second])
    with pytest.raises(MTAdaptError, match=r"task 'sem_seg': CascadeEncoderDecoder with .*heads that give logits"):
        MultiTaskGraph(multi_task_model(sem_seg=cascade))


def test_settings_without_a_graph_are_refused():
    soft = fcos()
    soft.test_cfg.nms = dict(type="soft_nms", iou_threshold=0.5)
    with pytest.raises(MTAdaptError, match=r"task 'det': test_cfg.nms=.*soft_nms.*only type='nms'"):
        MultiTaskGraph(spread_model(det=soft))
    all_candidates = fcos()
    all_candidates.test_cfg.nms_pre = -1
    with pytest.raises(MTAdaptError, match=r"task 'det': test_cfg.nms_pre=-1"):
        MultiTaskGraph(spread_model(det=all_candidates))
    endless = faster_rcnn()
    endless.test_cfg.rcnn.max_per_img = -1
    with pytest.raises(MTAdaptError, match=r"test_cfg.rcnn.max_per_img=-1"):
        MultiTaskGraph(spread_model(det=endless))
    with pytest.raises(MTAdaptError, match=r"--tasks lanes: no task of the model; it has det"):
        MultiTaskGraph(spread_model(det=fcos()), ["lanes"])


def test_tasks_can_be_chosen():
    model = spread_model(det=dino(), sem_seg=fpn_head(), cls=classifier())
    graph = _graph(model, tasks=["cls", "sem_seg"])
    assert graph.outputs == ["cls_scores", "cls_labels", "sem_seg_classes"]
    assert list(_run(graph, images(1, 64, 64))) == graph.outputs
