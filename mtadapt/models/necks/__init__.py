"""Necks that the three libraries do not have."""

from mtadapt.models.necks.simple_feature_pyramid import SimpleFeaturePyramid

__all__ = ["SimpleFeaturePyramid"]
