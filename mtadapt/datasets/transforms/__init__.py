"""Transforms; the geometric and photometric ones are mmcv's, mmdet's and mmseg's."""

from mtadapt.datasets.transforms.formatting import PackMultiTaskInputs
from mtadapt.datasets.transforms.ignore_labels import IgnoreLabels
from mtadapt.datasets.transforms.loading import LoadImage, LoadMultiTaskAnnotations
from mtadapt.datasets.transforms.pretraining import MaskPatches, PackPretrainInputs, PretrainViews

__all__ = [
    "IgnoreLabels",
    "LoadImage",
    "LoadMultiTaskAnnotations",
    "MaskPatches",
    "PackMultiTaskInputs",
    "PackPretrainInputs",
    "PretrainViews",
]
