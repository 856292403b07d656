"""Heuristic pre-training: multi-label classification, masked image modelling and contrastive learning in one run."""

from mtadapt.models.pretraining.contrastive import ContrastiveBranch
from mtadapt.models.pretraining.data_preprocessor import PretrainDataPreprocessor
from mtadapt.models.pretraining.masked_image import MaskedImageBranch
from mtadapt.models.pretraining.multi_label import LinearMultiLabelHead, MLDecoderHead, PartialAsymmetricLoss
from mtadapt.models.pretraining.pretrainer import HeuristicPretrainer

__all__ = [
    "ContrastiveBranch",
    "HeuristicPretrainer",
    "LinearMultiLabelHead",
    "MLDecoderHead",
    "MaskedImageBranch",
    "PartialAsymmetricLoss",
    "PretrainDataPreprocessor",
]
