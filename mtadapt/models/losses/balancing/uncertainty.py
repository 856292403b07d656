"""Weights from the uncertainty of each task, which is learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.losses.balancing.balancer import LossBalancer
from mtadapt.registry import MODELS

#: Factor of exp(-s) for each kind of likelihood.
KINDS = dict(classification=1.0, regression=0.5)


@MODELS.register_module()
class UncertaintyWeighting(LossBalancer):
    r"""Homoscedastic uncertainty: :math:`\exp(-s) L + s / 2`, in regression :math:`\exp(-s) L / 2 + s / 2`.

    The log-variance :math:`s = \log \sigma^2` of each task is a parameter, which the optimizer trains with the others;
    ``paramwise_cfg=dict(custom_keys=dict(loss_balancer=dict(decay_mult=0)))`` keeps weight decay from it. The term
    :math:`s / 2` is the task's ``loss_log_variance``, so that the total can be negative.

    Ours: a task without labels in the batch has no term, so that its log-variance learns from its own losses alone.

    Args:
        tasks: names of the tasks.
        kinds: task name to ``classification`` or ``regression``; classification for those that are not named.
        log_variance: at the start; 0 for weights of 1 (1/2 in regression).

    Raises:
        MTAdaptError: for an unknown task or kind.

    Reference:
        Kendall, Gal, Cipolla, Multi-Task Learning Using Uncertainty to Weigh Losses, CVPR 2018, equations 7 and 10.
    """

    def __init__(self, tasks: Sequence[str], kinds: Mapping[str, str] | None = None, log_variance: float = 0.0) -> None:
        super().__init__(tasks)
        kinds = kinds or {}
        self._check_tasks("kinds", kinds)
        for task, kind in kinds.items():
            if kind not in KINDS:
                raise MTAdaptError(f"loss_balancer.kinds[{task!r}]={kind!r} is unknown; known: {', '.join(KINDS)}")
        self.factors = {task: KINDS[kinds.get(task, "classification")] for task in self.tasks}
        # One parameter a task, so that each has the gradient of its own task alone; FSDP wants no scalars.
        self.log_variances = nn.ParameterDict({task: nn.Parameter(torch.full((1,), log_variance)) for task in tasks})

    def forward(
        self, losses: Mapping[str, Tensor | list[Tensor]], features: Sequence[Tensor]
    ) -> dict[str, Tensor | list[Tensor]]:
        """Weight the losses and add the terms of the log-variances."""
        balanced = super().forward(losses, features)
        for task, log_variance in self.log_variances.items():
            # Zero without labels, but through the parameter, which then has a gradient on every process.
            part = 0.5 if f"{task}.weight" in balanced else 0.0
            balanced[f"{task}.loss_log_variance"] = part * log_variance.squeeze()
        return balanced

    def weigh(self, present: Mapping[str, Tensor], features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Inverse variances."""
        return {task: self.factors[task] * torch.exp(-self.log_variances[task]).squeeze() for task in present}
