"""The picture: its size, what stands where, and colours of known pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.structures import MultiTaskDataSample
from mtadapt.visualization import MultiTaskVisualizer

SIZE = (360, 640)


@pytest.fixture
def sample() -> MultiTaskDataSample:
    """Left half road and direct, right half sky and background; one box in each column, one below the threshold."""
    height, width = SIZE
    sem_seg = torch.zeros(1, height, width, dtype=torch.int64)
    sem_seg[..., width // 2 :] = 10
    drivable = torch.zeros(1, height, width, dtype=torch.int64)
    drivable[..., width // 2 :] = 2
    sample = MultiTaskDataSample(metainfo=dict(labelled_tasks=("det", "sem_seg", "drivable")))
    sample.set_task(
        "det",
        DetDataSample(
            gt_instances=InstanceData(bboxes=torch.tensor([[400.0, 100, 500, 200]]), labels=torch.tensor([2])),
            pred_instances=InstanceData(
                bboxes=torch.tensor([[400.0, 100, 500, 200], [520, 220, 620, 320]]),
                labels=torch.tensor([2, 0]),
                scores=torch.tensor([0.9, 0.1]),
            ),
        ),
    )
    for task, seg_map in (("sem_seg", sem_seg), ("drivable", drivable)):
        sample.set_task(task, SegDataSample(gt_sem_seg=PixelData(data=seg_map), pred_sem_seg=PixelData(data=seg_map)))
    return sample


def visualizer() -> MultiTaskVisualizer:
    made = MultiTaskVisualizer(alpha=0.5)
    made.dataset_meta = METAINFO
    return made


def test_rows_columns_and_colours(sample: MultiTaskDataSample):
    image = np.full((*SIZE, 3), 100, np.uint8)
    picture = visualizer().compose(image, sample, draw_gt=True, draw_pred=True, score_thr=0.3)
    strip = 28
    assert picture.shape == (2 * (SIZE[0] + strip) + strip, 2 * SIZE[1], 3)
    mix = lambda colour: (np.array(colour) + 100) / 2  # noqa: E731
    top, bottom = strip + 300, SIZE[0] + 2 * strip + 300
    for left in (0, SIZE[1]):
        np.testing.assert_allclose(picture[top, left + 50], mix(METAINFO["tasks"]["drivable"]["palette"][0]), atol=1)
        np.testing.assert_array_equal(picture[top, left + 400], 100)
        np.testing.assert_allclose(picture[bottom, left + 50], mix((128, 64, 128)), atol=1)
        np.testing.assert_allclose(picture[bottom, left + 400], mix((70, 130, 180)), atol=1)
        edge = picture[strip + 150, left + 396 : left + 404].astype(int)
        assert np.abs(edge - METAINFO["tasks"]["det"]["palette"][2]).sum(1).min() < 60


def test_boxes_below_the_threshold_are_not_drawn(sample: MultiTaskDataSample):
    image = np.full((*SIZE, 3), 100, np.uint8)
    region = np.s_[28 + 210 : 28 + 330, SIZE[1] + 510 : SIZE[1] + 630]
    assert (visualizer().compose(image, sample, True, True, 0.3)[region] == 100).all()
    assert (visualizer().compose(image, sample, True, True, 0.05)[region] != 100).any()


def test_small_images_are_enlarged_and_boxes_with_them(sample: MultiTaskDataSample):
    sample.det.gt_instances.bboxes /= 4
    image = np.full((SIZE[0] // 4, SIZE[1] // 4, 3), 100, np.uint8)
    picture = visualizer().compose(image, sample, draw_gt=True, draw_pred=False, score_thr=0.3)
    assert picture.shape[1] == 640
    edge = picture[28 + 150, 396:404].astype(int)
    assert np.abs(edge - METAINFO["tasks"]["det"]["palette"][2]).sum(1).min() < 60


def test_only_what_there_is(sample: MultiTaskDataSample):
    image = np.full((*SIZE, 3), 100, np.uint8)
    alone = MultiTaskDataSample()
    alone.set_task("drivable", sample.drivable)
    assert visualizer().compose(image, alone, True, False, 0.3).shape[:2] == (SIZE[0] + 2 * 28, SIZE[1])
    np.testing.assert_array_equal(visualizer().compose(image, MultiTaskDataSample(), True, True, 0.3), image)
