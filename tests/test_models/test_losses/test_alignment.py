"""Alignment losses against loops over pixels in float64."""

from __future__ import annotations

import math

import torch
from mmengine.structures import InstanceData

from mtadapt.models.losses import box_alignment_loss, fill_boxes, map_alignment_loss


def boxes(*rows: tuple[float, float, float, float, int]) -> InstanceData:
    table = torch.tensor(rows).reshape(-1, 5)
    return InstanceData(bboxes=table[:, :4], labels=table[:, 4].long())


def test_map_loss_is_the_mean_cross_entropy_at_the_centres_of_the_cells():
    torch.manual_seed(0)
    scores, maps = torch.randn(2, 4, 3, 5), torch.randint(0, 4, (2, 24, 40))
    maps[:, :12, :9] = 255
    total, count = 0.0, 0
    for image in range(2):
        for row in range(3):
            for column in range(5):
                label = int(maps[image, row * 8 + 4, column * 8 + 4])
                if label == 255:
                    continue
                logits = [float(value) for value in scores[image, :, row, column].double()]
                total -= logits[label] - math.log(sum(math.exp(value) for value in logits))
                count += 1
    assert 0 < count < 30
    assert map_alignment_loss(scores, maps).item() == torch.tensor(total / count).item() or math.isclose(
        map_alignment_loss(scores, maps).item(), total / count, rel_tol=1e-6
    )


def test_map_loss_of_an_image_without_labels_is_zero():
    scores = torch.randn(1, 4, 2, 2, requires_grad=True)
    loss = map_alignment_loss(scores, torch.full((1, 8, 8), 255))
    loss.backward()
    assert loss.item() == 0 and scores.grad is not None and not scores.grad.any()


def test_filled_boxes_are_the_cells_whose_centre_is_inside():
    filled = fill_boxes(boxes((4, 4, 12, 20, 1), (0, 0, 3.9, 3.9, 0), (20, 0, 32, 4.5, 1)), (3, 3, 4), (24, 32))
    expected = torch.zeros(3, 3, 4, dtype=torch.bool)
    expected[1, 0, 0] = expected[1, 1, 0] = True  # centres (4, 4), (4, 12); (12, ...) is outside
    expected[1, 0, 2:4] = True  # centres (20, 4) and (28, 4)
    assert torch.equal(filled, expected)


def test_box_loss_leaves_out_ignored_cells_and_counts_classes_alone():
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 4, 4)
    instances = [boxes((0, 0, 16, 16, 2)), boxes()]
    ignored = [boxes((0, 0, 32, 8, 2), (0, 0, 32, 32, 0)), boxes()]
    total, count = 0.0, 0
    for image in range(2):
        for klass in range(3):
            for row in range(4):
                for column in range(4):
                    positive = image == 0 and klass == 2 and row < 2 and column < 2
                    hidden = image == 0 and (klass == 0 or (klass == 2 and row < 1))
                    if hidden and not positive:
                        continue
                    value = float(scores[image, klass, row, column].double())
                    total += math.log1p(math.exp(-value if positive else value))
                    count += 1
    assert math.isclose(box_alignment_loss(scores, instances, ignored, (32, 32)).item(), total / count, rel_tol=1e-6)


def test_padding_does_not_count():
    torch.manual_seed(0)
    scores = torch.randn(1, 2, 4, 8)
    instances, none = [boxes((0, 0, 16, 16, 1))], [boxes()]
    padded = box_alignment_loss(scores, instances, none, (32, 64), [(24, 32)])
    cut = box_alignment_loss(scores[..., :3, :4], instances, none, (24, 32))
    torch.testing.assert_close(padded, cut)
    assert not torch.isclose(padded, box_alignment_loss(scores, instances, none, (32, 64)))
