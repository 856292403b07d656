"""Datasets and transforms."""

from mtadapt.datasets import transforms
from mtadapt.datasets.bdd100k import BDD100KDataset
from mtadapt.datasets.label_settings import apply_label_setting

__all__ = ["BDD100KDataset", "apply_label_setting", "transforms"]
