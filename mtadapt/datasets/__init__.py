"""Datasets and transforms."""

from mtadapt.datasets import transforms
from mtadapt.datasets.bdd100k import BDD100KDataset
from mtadapt.datasets.heterogeneous import HeterogeneousDataset
from mtadapt.datasets.label_settings import apply_label_setting
from mtadapt.datasets.multi_label import MultiLabelDataset
from mtadapt.datasets.samplers import HeterogeneousBatchSampler

__all__ = [
    "BDD100KDataset",
    "HeterogeneousBatchSampler",
    "HeterogeneousDataset",
    "MultiLabelDataset",
    "apply_label_setting",
    "transforms",
]
