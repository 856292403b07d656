"""The picture: its size, what stands where, and colours of known pixels."""

from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.engine import MultiTaskVisualizationHook
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


def test_a_prediction_alone_is_not_called_one(sample: MultiTaskDataSample):
    """Without ground truth the title is the tasks alone, so it is the same picture with and without draw_gt."""
    image = np.full((*SIZE, 3), 100, np.uint8)
    alone = MultiTaskDataSample()
    alone.set_task("drivable", SegDataSample(pred_sem_seg=sample.drivable.pred_sem_seg))
    truth = MultiTaskDataSample()
    truth.set_task("drivable", SegDataSample(gt_sem_seg=sample.drivable.pred_sem_seg))
    one, two, other = (visualizer().compose(image, each, True, True, 0.3) for each in (alone, alone, truth))
    assert np.array_equal(one, two) and one.shape == other.shape
    lit = [(picture[:28] > 100).any(axis=(0, 2)).nonzero()[0].max() for picture in (one, other)]
    assert lit[0] + 60 < lit[1]
    assert np.array_equal(one[28:], other[28:])


def test_a_choice_of_tasks(sample: MultiTaskDataSample):
    image = np.full((*SIZE, 3), 100, np.uint8)
    alone = MultiTaskDataSample()
    alone.set_task("sem_seg", sample.sem_seg)
    chosen = visualizer().compose(image, sample, True, True, 0.3, tasks=("sem_seg",))
    assert np.array_equal(chosen, visualizer().compose(image, alone, True, True, 0.3))


def test_the_pictures_of_a_video_have_one_size(sample: MultiTaskDataSample):
    image = np.full((*SIZE, 3), 100, np.uint8)
    empty = sample.clone()
    empty.det.pred_instances = empty.det.pred_instances[:0]
    empty.sem_seg.pred_sem_seg.data[:] = 0
    one, two = (visualizer().compose(image, each, False, True, 0.3, fixed_legend=True) for each in (sample, empty))
    assert one.shape == two.shape
    legends = [picture[2 * (28 + SIZE[0]) :] for picture in (one, two)]
    assert np.array_equal(*legends) and len(legends[0]) > 28


@pytest.mark.parametrize("size", [(48, 64), (720, 1280), (2160, 3840), (640, 40)])
def test_letters_are_readable_in_pictures_of_every_size(size: tuple[int, int]):
    """The strip of the title grows with the picture, and the picture is neither tiny nor endless."""
    found = InstanceData(bboxes=torch.tensor([[2.0, 2, 30, 40]]), labels=torch.tensor([2]), scores=torch.tensor([0.9]))
    sample = MultiTaskDataSample()
    sample.set_task("det", DetDataSample(pred_instances=found))
    picture = visualizer().compose(np.full((*size, 3), 100, np.uint8), sample, True, True, 0.3)
    strip = int((picture[:, 0] == 32).all(axis=1).argmin())
    assert strip == round(28 * max(1, picture.shape[1] / 1280))
    assert picture.shape[1] >= 640
    assert picture.shape[0] <= max(1280, size[0]) + 4 * strip


def test_a_tall_image_has_room_for_words():
    """The title, the legend and labels are those of an image that is wide enough; the image itself is not stretched."""

    def drawn(width: int) -> np.ndarray:
        masks = torch.zeros(1, 1500, width, dtype=torch.bool)
        masks[:, 800:900, 20:40] = True
        found = InstanceData(
            bboxes=torch.tensor([[10.0, 700, 50, 1000]]),
            labels=torch.tensor([8]),
            scores=torch.tensor([0.9]),
            masks=masks,
        )
        sample = MultiTaskDataSample()
        sample.set_task("det", DetDataSample(pred_instances=found))
        for task in ("drivable", "sem_seg"):
            seg_map = torch.zeros(1, 1500, width, dtype=torch.int64)
            sample.set_task(task, SegDataSample(pred_sem_seg=PixelData(data=seg_map)))
        return visualizer().compose(np.full((1500, width, 3), 100, np.uint8), sample, False, True, 0.3)

    tall, wide = drawn(60), drawn(640)
    assert tall.shape == wide.shape == (2 * (1500 + 28) + 28, 640, 3)
    strips = np.r_[0:28, 1528:1556, 3056:3084]
    assert np.array_equal(tall[strips], wide[strips])
    images = np.r_[28:1528, 1556:3056]
    assert np.array_equal(tall[images, :60], wide[images, :60])
    # The label of the box, whose name is longer than the image is wide, goes on over the margin.
    margin = (tall[28:1528, 60:] != 32).any(axis=2)
    assert np.array_equal(tall[28:1528, 60:][margin], wide[28:1528, 60:][margin])
    assert 600 < margin.nonzero()[0].min() < 700 and margin.nonzero()[1].max() < 100
    assert (tall[1556:3056, 60:] == 32).all()


def test_masks_of_objects_are_mixed_in():
    masks = torch.zeros(1, *SIZE, dtype=torch.bool)
    masks[:, 100:200, 100:200] = True
    found = InstanceData(
        bboxes=torch.tensor([[100.0, 100, 200, 200]]), labels=torch.tensor([2]), scores=torch.tensor([0.9]), masks=masks
    )
    sample = MultiTaskDataSample()
    sample.set_task("det", DetDataSample(pred_instances=found))
    picture = visualizer().compose(np.full((*SIZE, 3), 100, np.uint8), sample, True, True, 0.3)
    expected = (np.array(METAINFO["tasks"]["det"]["palette"][2]) + 100) / 2
    np.testing.assert_allclose(picture[28 + 150, 150], expected, atol=1)
    np.testing.assert_array_equal(picture[28 + 250, 250], 100)


def test_classes_of_images_and_maps_without_a_palette():
    """Another label changes the title alone; a class without a palette gets the same colour in every picture."""
    image = np.full((*SIZE, 3), 100, np.uint8)
    made = MultiTaskVisualizer(alpha=1.0)
    made.dataset_meta = dict(tasks=dict(cls=dict(classes=("cat", "dog")), sem_seg=dict(classes=("road", "sky"))))

    def picture(label: int) -> np.ndarray:
        sample = MultiTaskDataSample(metainfo=dict(labelled_tasks=("cls",)))
        sample.set_task("cls", DataSample().set_gt_label(0).set_pred_label(label))
        return made.compose(image, sample, draw_gt=True, draw_pred=True, score_thr=0.3)

    right, wrong = picture(0), picture(1)
    assert right.shape == (SIZE[0] + 2 * 28, 2 * SIZE[1], 3)
    assert np.array_equal(right[:, : SIZE[1]], wrong[:, : SIZE[1]])
    assert np.array_equal(right[28:], wrong[28:]) and not np.array_equal(right[:28], wrong[:28])
    sample = MultiTaskDataSample(metainfo=dict(labelled_tasks=("sem_seg",)))
    half = torch.zeros(1, *SIZE, dtype=torch.int64)
    half[..., SIZE[1] // 2 :] = 1
    sample.set_task("sem_seg", SegDataSample(gt_sem_seg=PixelData(data=half)))
    first, second = (made.compose(image, sample, True, True, 0.3) for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first[100, 10], first[100, -10])


def test_a_hook_draws_pictures_of_every_source(tmp_path):
    samples = []
    for source, count in (("a", 3), ("b", 2)):
        for number in range(count):
            path = tmp_path / f"{source}{number}.png"
            assert cv2.imwrite(str(path), np.full((32, 32, 3), 100, np.uint8))
            sample = MultiTaskDataSample(metainfo=dict(img_path=str(path), source=source, labelled_tasks=("cls",)))
            sample.set_task("cls", DataSample().set_gt_label(0).set_pred_label(1))
            samples.append(sample)
    made = MultiTaskVisualizer()
    made.dataset_meta = dict(tasks=dict(cls=dict(classes=("cat", "dog"))))
    hook = MultiTaskVisualizationHook(num_images=2, out_dir=str(tmp_path / "out"))
    hook.after_test_iter(SimpleNamespace(visualizer=made), 0, None, samples)
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["test_a_a0.jpg", "test_a_a1.jpg", "test_b_b0.jpg", "test_b_b1.jpg"]
