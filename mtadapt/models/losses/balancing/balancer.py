"""What all loss balancers have in common, and the losses of a batch by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError

#: Name of the zero loss of a task without labels in the batch.
ABSENT = "loss_absent"
#: In the place of a task's name, for what the routing of the backbone gives, which belongs to no task.
ROUTING = "routing"


class LossBalancer(nn.Module):
    """Multiply the losses of each task with a weight.

    A subclass gives the weights, and keeps what it has seen in buffers, which are in the checkpoint. Each forward pass
    in training counts, so each iteration of an accumulation window. Factors of ``loss_weights`` are in the losses
    already.

    Args:
        tasks: names of the tasks.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)

    def forward(
        self, losses: Mapping[str, Tensor | list[Tensor]], features: Sequence[Tensor]
    ) -> dict[str, Tensor | list[Tensor]]:
        """Weight the losses of a batch.

        Args:
            losses: as :meth:`mtadapt.models.MultiTaskModel.loss` names them.
            features: the shared features that all tasks read.

        Returns:
            The losses, with the statistic ``task.weight`` of each task that has labels.
        """
        absent = absent_tasks(losses)
        present = {name: total for name, total in task_totals(losses).items() if name not in absent}
        weights = self.weigh(present, features)
        balanced = {}
        for key, value in losses.items():
            task = key.partition(".")[0]
            balanced[key] = _scale(value, weights[task]) if task in present and "loss" in key else value
        for task in present:
            balanced[f"{task}.weight"] = weights[task].detach()
        return balanced

    def weigh(self, present: Mapping[str, Tensor], features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Weights of the tasks for this batch.

        Args:
            present: task name to the sum of its losses, of the tasks that have labels in the batch of this process.
            features: the shared features that all tasks read.
        """
        raise NotImplementedError

    @property
    def learning(self) -> bool:
        """Whether this forward pass is one of training."""
        return self.training and torch.is_grad_enabled()

    def _check_tasks(self, setting: str, names: Mapping[str, object]) -> None:
        unknown = sorted(set(names) - set(self.tasks))
        if unknown:
            raise MTAdaptError(f"loss_balancer.{setting} names unknown tasks {unknown}; tasks: {', '.join(self.tasks)}")


def task_totals(losses: Mapping[str, Tensor | list[Tensor]]) -> dict[str, Tensor]:
    """Sum of the losses of each task, as :meth:`mmengine.model.BaseModel.parse_losses` sums all of them.

    Args:
        losses: loss or statistic by ``task.name``.
    """
    totals = _totals(losses)
    totals.pop(ROUTING, None)
    return totals


def common_loss(losses: Mapping[str, Tensor | list[Tensor]]) -> Tensor | None:
    """Sum of the losses that belong to no task; None when there are none.

    Args:
        losses: loss or statistic by ``task.name``.
    """
    return _totals(losses).get(ROUTING)


def _totals(losses: Mapping[str, Tensor | list[Tensor]]) -> dict[str, Tensor]:
    totals: dict[str, Tensor] = {}
    for key, value in losses.items():
        if "loss" in key:
            parts = [part.mean() for part in value] if isinstance(value, list) else [value.mean()]
            task = key.partition(".")[0]
            for part in parts:
                totals[task] = totals[task] + part if task in totals else part
    return totals


def absent_tasks(losses: Mapping[str, object]) -> frozenset[str]:
    """Tasks that have no labels in the batch."""
    return frozenset(task for task, _, term in (key.partition(".") for key in losses) if term == ABSENT)


def _scale(value: Tensor | list[Tensor], weight: Tensor) -> Tensor | list[Tensor]:
    return [item * weight for item in value] if isinstance(value, list) else value * weight
