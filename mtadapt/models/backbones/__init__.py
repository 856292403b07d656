"""Backbones that the three libraries do not have."""

from mtadapt.models.backbones.efficientnet_lite import EfficientNetLite0

__all__ = ["EfficientNetLite0"]
