"""Images with several labels, and the readers of their label files."""

from mtadapt.datasets.multi_label.bdd100k_labels import BDD100KLabels
from mtadapt.datasets.multi_label.coco_labels import CocoLabels
from mtadapt.datasets.multi_label.dataset import MultiLabelDataset
from mtadapt.datasets.multi_label.label_list import LabelList
from mtadapt.datasets.multi_label.reader import ImageLabels, LabelReader
from mtadapt.datasets.multi_label.relations import PREDICATES, spatial_relations
from mtadapt.datasets.multi_label.vocabulary import LabelVocabulary

__all__ = [
    "PREDICATES",
    "BDD100KLabels",
    "CocoLabels",
    "ImageLabels",
    "LabelList",
    "LabelReader",
    "LabelVocabulary",
    "MultiLabelDataset",
    "spatial_relations",
]
