"""Adapters: small trainable parts for pretrained backbones."""

from mtadapt.models.adapters.adapted_backbone import adapt_backbone
from mtadapt.models.adapters.bottleneck import BottleneckAdapter
from mtadapt.models.adapters.lora import InsertedAdapter, LoRA, TokenBottleneck
from mtadapt.models.adapters.lv_adapter import LVAdapter
from mtadapt.models.adapters.multi_scale_adapter import MultiScaleAdapter

__all__ = [
    "BottleneckAdapter",
    "InsertedAdapter",
    "LVAdapter",
    "LoRA",
    "MultiScaleAdapter",
    "TokenBottleneck",
    "adapt_backbone",
]
