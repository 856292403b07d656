"""Pretrained checkpoints: read any public format safely, check the match, benchmark, report."""

from mtadapt.zoo.backbone_weights_hook import BackboneWeightsHook
from mtadapt.zoo.load_report import LoadReport
from mtadapt.zoo.loading import load_backbone

__all__ = ["BackboneWeightsHook", "LoadReport", "load_backbone"]
