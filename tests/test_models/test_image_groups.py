from __future__ import annotations

import pytest
import torch

from mtadapt.errors import MTAdaptError
from mtadapt.models import MultiTaskDataPreprocessor
from mtadapt.models.image_groups import group_rows, mean_losses
from tests import models
from tests.models import NORMALISE, batch, multi_task_model


def mixed_batch():
    """Two sources of unlike sizes: boxes on large images, labels on small ones."""
    data = batch(
        [("det",), ("det",), ("cls",), ("cls",), ("cls",)], [(96, 128), (96, 96), (32, 32), (32, 32), (32, 32)]
    )
    for sample, source in zip(data["data_samples"], "aabbb", strict=True):
        sample.set_metainfo(dict(source=source))
    return data


def test_each_source_is_padded_to_its_own_size():
    preprocessor = MultiTaskDataPreprocessor(**NORMALISE)
    inputs = preprocessor(mixed_batch(), True)["inputs"]
    assert [tuple(images.shape) for images in inputs] == [(2, 3, 96, 128), (3, 3, 32, 32)]
    merged = MultiTaskDataPreprocessor(merge_sources=[["b", "a"]], **NORMALISE)(mixed_batch(), True)["inputs"]
    assert merged.shape == (5, 3, 96, 128)
    assert (
        MultiTaskDataPreprocessor(merge_sources="all", **NORMALISE)(mixed_batch(), True)["inputs"].shape == merged.shape
    )
    assert torch.equal(inputs[0], merged[:2]) and torch.equal(inputs[1], merged[2:, :, :32, :32])


def test_losses_of_a_mixed_batch_are_those_of_its_sources_alone():
    """The backbone's batch norms are in evaluation mode, so the batches do not meet."""
    model = multi_task_model(det=models.fcos(), cls=models.classifier()).train()
    data = mixed_batch()
    out = model.data_preprocessor(data, True)
    whole = model.loss(out["inputs"], out["data_samples"])
    for task, rows in (("det", slice(0, 2)), ("cls", slice(2, 5))):
        part = {key: values[rows] for key, values in mixed_batch().items()}
        out = model.data_preprocessor(part, True)
        alone = model.loss(out["inputs"], out["data_samples"])
        for name, value in alone.items():
            if name.startswith(task):
                assert torch.equal(torch.as_tensor(whole[name]), torch.as_tensor(value)), name


def test_predictions_of_a_mixed_batch_keep_their_order():
    model = multi_task_model(det=models.fcos(), cls=models.classifier()).eval()
    data = mixed_batch()
    order = [0, 2, 1, 3, 4]
    shuffled = {key: [values[row] for row in order] for key, values in data.items()}
    with torch.no_grad():
        found = model.test_step(shuffled)
        assert [sample.img_id for sample in found] == order
        for sample in found:
            alone = {key: [values[sample.img_id]] for key, values in mixed_batch().items()}
            (expected,) = model.test_step(alone)
            assert sample.tasks == expected.tasks == sample.labelled_tasks
            if "cls" in sample.tasks:
                torch.testing.assert_close(sample.cls.pred_score, expected.cls.pred_score)
            else:
                torch.testing.assert_close(sample.det.pred_instances.bboxes, expected.det.pred_instances.bboxes)


def test_images_of_several_sizes_need_samples():
    model = multi_task_model(cls=models.classifier())
    with pytest.raises(MTAdaptError, match="images of several sizes need their data_samples"):
        model([torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 64, 64)], None, "predict")


def test_rows_by_group():
    sources = ["a", "b", "a", "c"]
    assert group_rows(sources, None, keep_order=False) == [[0, 2], [1], [3]]
    assert group_rows(sources, None, keep_order=True) == [[0], [1], [2], [3]]
    assert group_rows(sources, [["c", "a"]], keep_order=False) == [[0, 2, 3], [1]]
    assert group_rows(sources, "all", keep_order=True) == [[0, 1, 2, 3]]


def test_mean_losses_weighs_by_images():
    parts = [
        (1, dict(loss=torch.tensor(4.0), levels=[torch.tensor(1.0), torch.tensor(2.0)])),
        (3, dict(loss=torch.tensor(8.0))),
    ]
    mean = mean_losses(parts)
    assert mean["loss"] == 7.0 and mean["levels"] == 0.75
    assert mean_losses(parts[:1]) is parts[0][1]


@pytest.mark.parametrize(
    ("value", "message"),
    [("none", "merge_sources='none'; write 'all' or lists"), ([["a"], ["a", "b"]], "names a twice")],
)
def test_bad_merge_sources(value, message):
    with pytest.raises(MTAdaptError, match=message):
        MultiTaskDataPreprocessor(merge_sources=value)
