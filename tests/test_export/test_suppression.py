"""The operator of a batch against torchvision's, image by image."""

from __future__ import annotations

import pytest
import torch
import torchvision

from mtadapt.export.boxes import Suppression, best_places
from mtadapt.export.suppression import NOTHING, OPERATOR


def _boxes(images: int, count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator) * 60 - 10
    side = 10 + torch.rand(images, count, 2, generator=generator) * 20
    scores = torch.rand(images, count, generator=generator)
    return torch.cat([corner, corner + side], dim=-1), scores


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
def test_images_do_not_suppress_each_other(threshold: float):
    boxes, scores = _boxes(3, 80)
    boxes[1] = boxes[0]  # the same places in another image
    scores[2, ::2] = NOTHING
    kept = OPERATOR(boxes, scores, threshold)
    for number in range(3):
        there = (scores[number] >= 0).nonzero().squeeze(1)
        own = there[torchvision.ops.nms(boxes[number][there], scores[number][there], threshold)]
        assert kept[number].nonzero().squeeze(1).equal(own.sort().values)
    assert 0 < kept.sum() < (scores >= 0).sum()


def test_no_boxes_at_all():
    boxes, scores = _boxes(2, 5)
    assert not OPERATOR(boxes, torch.full_like(scores, NOTHING), 0.5).any()


def test_a_box_of_the_threshold_is_kept():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 5, 10]]])
    scores = torch.tensor([[0.9, 0.8]])
    assert OPERATOR(boxes, scores, 0.5).tolist() == [[True, True]]
    assert OPERATOR(boxes, scores, 0.49).tolist() == [[True, False]]


def test_places_of_a_short_row():
    scores = torch.tensor([[0.1, 0.3, 0.2]])
    values, places = best_places(scores, 5)
    assert places.shape == (1, 5) and places[0, :3].tolist() == [1, 2, 0] and int(places.max()) <= 2
    torch.testing.assert_close(values, torch.tensor([[0.3, 0.2, 0.1, NOTHING, NOTHING]]))


def test_classes_are_apart_as_mmcv_puts_them():
    from mmcv.ops import batched_nms

    boxes, scores = _boxes(1, 60, seed=4)
    labels = torch.arange(60)[None] % 3
    suppression = Suppression.of(dict(nms=dict(type="nms", iou_threshold=0.3), max_per_img=60), "test_cfg")
    found, best, classes = suppression.best(boxes, scores, labels)
    stock, kept = batched_nms(boxes[0], scores[0], labels[0], dict(type="nms", iou_threshold=0.3))
    count = len(kept)
    assert 5 < count < 60
    torch.testing.assert_close(torch.cat([found[0, :count], best[0, :count, None]], dim=1), stock)
    assert classes[0, :count].equal(labels[0][kept]) and (best[0, count:] == NOTHING).all()
