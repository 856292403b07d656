"""Backbones that the three libraries do not have."""

from mtadapt.models.backbones.clip_resnet import CLIPResNet
from mtadapt.models.backbones.efficientnet_lite import EfficientNetLite0
from mtadapt.models.backbones.moe_davit import MoEDaViT
from mtadapt.models.backbones.moe_swin import MoESwin
from mtadapt.models.backbones.moe_vit import MoEViT

__all__ = ["CLIPResNet", "EfficientNetLite0", "MoEDaViT", "MoESwin", "MoEViT"]
