"""Pictures of what a pre-training sees."""

from __future__ import annotations

import numpy as np
import torch
from mmpretrain.structures import DataSample

from mtadapt.structures import MultiTaskDataSample
from mtadapt.visualization import views
from mtadapt.visualization.views import draw_views


def test_views_masks_and_labels(monkeypatch):
    captions = []
    monkeypatch.setattr(
        views, "draw_panels", lambda rows, titles: captions.append((rows[0].caption, titles)) or rows[0]
    )
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    sample = MultiTaskDataSample(metainfo=dict(img_path="x/a.jpg"))
    sample.set_task("mlc", DataSample().set_gt_score(torch.tensor([1.0, 0.0, -1.0, 1.0])))
    sample.mask = torch.zeros(16, 16, dtype=torch.bool)
    sample.mask[:4, 8:] = True
    base, key, masked = draw_views(images, sample, ["car", "bus", "train", "car left of bus"]).panels
    # BGR images as RGB.
    assert np.array_equal(base, images[0].numpy()[::-1].transpose(1, 2, 0))
    assert np.array_equal(key, images[1].numpy()[::-1].transpose(1, 2, 0))
    assert (masked[:16, 32:] == 128).all()
    assert np.array_equal(masked[16:], base[16:]) and np.array_equal(masked[:16, :32], base[:16, :32])
    alone = draw_views(images[:1], MultiTaskDataSample(metainfo=dict(img_path="b.jpg")), [])
    assert len(alone.panels) == 1
    assert captions == [
        ("a.jpg: car, car left of bus (1 unknown)", ["base view", "key view", "masked"]),
        ("b.jpg", ["base view"]),
    ]


def test_picture():
    picture = draw_views(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), MultiTaskDataSample(), [])
    # Two panels, enlarged threefold, between the line of titles and that of the caption.
    assert picture.shape == (24 + 192 + 24, 2 * 192, 3)
