"""Loss balancing: weights of the tasks that change in training."""

from mtadapt.models.losses.balancing.balancer import ROUTING, LossBalancer, absent_tasks, common_loss, task_totals
from mtadapt.models.losses.balancing.dwa import DWA
from mtadapt.models.losses.balancing.gradnorm import GradNorm
from mtadapt.models.losses.balancing.uncertainty import UncertaintyWeighting

__all__ = [
    "DWA",
    "ROUTING",
    "GradNorm",
    "LossBalancer",
    "UncertaintyWeighting",
    "absent_tasks",
    "common_loss",
    "task_totals",
]
