"""Loss balancing: weights of the tasks that change in training."""

from mtadapt.models.losses.balancing.balancer import LossBalancer, absent_tasks, task_totals
from mtadapt.models.losses.balancing.dwa import DWA
from mtadapt.models.losses.balancing.gradnorm import GradNorm
from mtadapt.models.losses.balancing.uncertainty import UncertaintyWeighting

__all__ = ["DWA", "GradNorm", "LossBalancer", "UncertaintyWeighting", "absent_tasks", "task_totals"]
