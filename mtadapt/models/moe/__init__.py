"""Mixture-of-experts layers of vision transformers."""

from mtadapt.models.moe.backbone import MoEBackbone
from mtadapt.models.moe.layers import MoEAttention, MoELayer, MoEMLP
from mtadapt.models.moe.routes import Route, Routes
from mtadapt.models.moe.settings import LayerExperts, check_task_banks, plan_experts

__all__ = [
    "LayerExperts",
    "MoEAttention",
    "MoEBackbone",
    "MoELayer",
    "MoEMLP",
    "Route",
    "Routes",
    "check_task_banks",
    "plan_experts",
]
