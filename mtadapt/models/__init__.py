"""Models."""

from mtadapt.models.adapters import (
    BottleneckAdapter,
    LoRA,
    LVAdapter,
    MultiScaleAdapter,
    TokenBottleneck,
    adapt_backbone,
)
from mtadapt.models.backbones import EfficientNetLite0
from mtadapt.models.data_preprocessor import MultiTaskDataPreprocessor
from mtadapt.models.multi_task_model import MultiTaskModel
from mtadapt.models.shared_features import SharedFeatures
from mtadapt.models.text import OpenCLIPTextEncoder, PrecomputedTextEmbeddings, SentenceTextEncoder

__all__ = [
    "BottleneckAdapter",
    "EfficientNetLite0",
    "LVAdapter",
    "LoRA",
    "MultiScaleAdapter",
    "MultiTaskDataPreprocessor",
    "MultiTaskModel",
    "OpenCLIPTextEncoder",
    "PrecomputedTextEmbeddings",
    "SentenceTextEncoder",
    "SharedFeatures",
    "TokenBottleneck",
    "adapt_backbone",
]
