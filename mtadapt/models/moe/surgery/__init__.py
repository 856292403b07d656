"""Take trained models with experts apart, adapt, extend and combine them: functions of a config and a state dict."""

from mtadapt.models.moe.surgery.adapt import CHOICES, adapt
from mtadapt.models.moe.surgery.combine import combine, parse_routes
from mtadapt.models.moe.surgery.configs import CONFIG_FOLDER, Incoming
from mtadapt.models.moe.surgery.extend import extend
from mtadapt.models.moe.surgery.layers import ExpertLayer, Experts
from mtadapt.models.moe.surgery.prune import prune

__all__ = [
    "CHOICES",
    "CONFIG_FOLDER",
    "ExpertLayer",
    "Experts",
    "Incoming",
    "adapt",
    "combine",
    "extend",
    "parse_routes",
    "prune",
]
