"""MultiTaskDataSample."""

from __future__ import annotations

import pytest
import torch
from mmengine.structures import BaseDataElement

from mtadapt.structures import MultiTaskDataSample


def test_tasks_are_native_samples_and_metainfo_is_not():
    sample = MultiTaskDataSample(metainfo=dict(img_path="a.jpg", labelled_tasks=("b",)))
    native = BaseDataElement(value=torch.ones(2))
    sample.set_task("b", native)
    sample.set_task("a", BaseDataElement())
    assert sample.tasks == ("a", "b") and sample.b is native and sample.task("b") is native
    assert sample.labelled_tasks == ("b",)
    assert MultiTaskDataSample().labelled_tasks == ()
    with pytest.raises(AttributeError, match="lane"):
        sample.task("lane")


def test_copies_and_moves_the_native_samples():
    sample = MultiTaskDataSample(metainfo=dict(labelled_tasks=("a",)))
    sample.set_task("a", BaseDataElement(value=torch.ones(2)))
    double = sample.clone().to(torch.float64)
    assert double.a.value.dtype == torch.float64 and sample.a.value.dtype == torch.float32
    assert double.labelled_tasks == ("a",)
    assert sample.to_dict()["a"]["value"].tolist() == [1, 1] and sample.to_dict()["labelled_tasks"] == ("a",)


def test_a_task_must_be_a_sample():
    with pytest.raises(AssertionError):
        MultiTaskDataSample().set_task("a", torch.ones(2))
