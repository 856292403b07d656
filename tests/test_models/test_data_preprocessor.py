"""Padding and normalisation against their closed forms and against mmdet's preprocessor."""

from __future__ import annotations

import copy

import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor

from mtadapt.errors import MTAdaptError
from mtadapt.models import MultiTaskDataPreprocessor
from tests.models import NORMALISE, batch

TASKS = ("det", "sem_seg", "drivable")


def test_images_equal_mmdet():
    data = batch([TASKS] * 2, [(60, 90), (70, 80)])
    ours = MultiTaskDataPreprocessor(**NORMALISE)(copy.deepcopy(data), training=True)
    stock = DetDataPreprocessor(**NORMALISE)(
        dict(inputs=data["inputs"], data_samples=[sample.det for sample in data["data_samples"]]), training=True
    )
    assert torch.equal(ours["inputs"], stock["inputs"])
    for sample, expected in zip(ours["data_samples"], stock["data_samples"], strict=True):
        assert sample.pad_shape == expected.pad_shape and sample.batch_input_shape == expected.batch_input_shape


def test_maps_are_padded_like_the_images():
    data = batch([TASKS] * 2, [(60, 90), (70, 80)])
    raw = [sample.drivable.gt_sem_seg.data.clone() for sample in data["data_samples"]]
    samples = MultiTaskDataPreprocessor(**NORMALISE)(data, training=True)["data_samples"]
    for sample, original in zip(samples, raw, strict=True):
        padded = sample.drivable.gt_sem_seg.data
        height, width = original.shape[-2:]
        assert padded.shape == (1, 96, 96) and padded.dtype == torch.int64
        assert torch.equal(padded[:, :height, :width], original.long())
        assert (padded[:, height:] == 255).all() and (padded[:, :, width:] == 255).all()


def test_ground_truth_keeps_its_size_in_validation():
    data = batch([TASKS], [(60, 90)])
    sample = MultiTaskDataPreprocessor(**NORMALISE)(data, training=False)["data_samples"][0]
    assert sample.sem_seg.gt_sem_seg.data.shape == (1, 60, 90)


def test_map_of_another_size_than_the_image():
    data = batch([TASKS], [(60, 90)])
    data["inputs"][0] = data["inputs"][0][:, :50]
    data["data_samples"][0].set_metainfo(dict(img_shape=(50, 90)))
    with pytest.raises(MTAdaptError, match=r"0.jpg: the \w+ map is \(60, 90\) and the image \(50, 90\)"):
        MultiTaskDataPreprocessor(**NORMALISE)(data, training=True)


def test_without_samples():
    data = MultiTaskDataPreprocessor(**NORMALISE)(dict(inputs=batch([()], [(60, 90)])["inputs"]), training=False)
    (sample,) = data["data_samples"]
    assert sample.ori_shape == sample.img_shape == (60, 90) and sample.batch_input_shape == (64, 96)
