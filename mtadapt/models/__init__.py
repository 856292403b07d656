"""Models."""

from mtadapt.models.adapters import (
    BottleneckAdapter,
    LoRA,
    LVAdapter,
    MultiScaleAdapter,
    TokenBottleneck,
    adapt_backbone,
)
from mtadapt.models.backbones import CLIPResNet, EfficientNetLite0, MoEDaViT, MoESwin, MoEViT
from mtadapt.models.data_preprocessor import MultiTaskDataPreprocessor
from mtadapt.models.losses.balancing import DWA, GradNorm, UncertaintyWeighting
from mtadapt.models.multi_task_model import MultiTaskModel
from mtadapt.models.necks import SimpleFeaturePyramid
from mtadapt.models.pretraining import (
    ContrastiveBranch,
    HeuristicPretrainer,
    LinearMultiLabelHead,
    MaskedImageBranch,
    MLDecoderHead,
    PartialAsymmetricLoss,
    PretrainDataPreprocessor,
)
from mtadapt.models.shared_features import SharedFeatures
from mtadapt.models.text import OpenCLIPTextEncoder, PrecomputedTextEmbeddings, SentenceTextEncoder

__all__ = [
    "DWA",
    "BottleneckAdapter",
    "CLIPResNet",
    "ContrastiveBranch",
    "EfficientNetLite0",
    "GradNorm",
    "HeuristicPretrainer",
    "LVAdapter",
    "LinearMultiLabelHead",
    "LoRA",
    "MLDecoderHead",
    "MaskedImageBranch",
    "MoEDaViT",
    "MoESwin",
    "MoEViT",
    "MultiScaleAdapter",
    "MultiTaskDataPreprocessor",
    "MultiTaskModel",
    "OpenCLIPTextEncoder",
    "PartialAsymmetricLoss",
    "PrecomputedTextEmbeddings",
    "PretrainDataPreprocessor",
    "SentenceTextEncoder",
    "SharedFeatures",
    "SimpleFeaturePyramid",
    "TokenBottleneck",
    "UncertaintyWeighting",
    "adapt_backbone",
]
