"""Which task uses which expert: running statistics, and the loss that makes them depend on each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor, nn

from mtadapt.models.moe.routes import Record, Routes


class ExpertUsage(nn.Module):
    """Running statistics of one layer, saved with the model.

    Args:
        num_tasks: T.
        num_experts: E.

    Attributes:
        probability: ``(T, E)``, P(e|t), the mean over tokens of the router's probabilities.
        load: ``(T, E)``, share of each expert among the picks of a task.
        updates: ``(T,)``, number of training steps that held the task. The first sets the statistics, the others move
            them.
    """

    probability: Tensor
    load: Tensor
    updates: Tensor

    def __init__(self, num_tasks: int, num_experts: int) -> None:
        super().__init__()
        self.register_buffer("probability", torch.zeros(num_tasks, num_experts))
        self.register_buffer("load", torch.zeros(num_tasks, num_experts))
        self.register_buffer("updates", torch.zeros(num_tasks, dtype=torch.int64))

    def record(self, routes: Routes, p: Tensor, picks: Tensor) -> None:
        """Note what a training step routed.

        Args:
            routes: of the rows.
            p: ``(M, L, E')`` probabilities of each entry of the routes.
            picks: ``(N, L, k)`` chosen experts of each row.
        """
        if not (self.training and torch.is_grad_enabled()):
            return
        num_experts = self.load.shape[1]
        sums = F.pad(p.sum(1), (0, num_experts - p.shape[-1]))
        flat = picks.flatten(1)
        counts = sums.new_zeros(len(picks), num_experts).scatter_add_(1, flat, sums.new_ones(1).expand_as(flat))
        with torch.autocast(p.device.type, enabled=False):
            if routes.single is None:
                counts = routes.shares.T @ counts
                tokens = routes.of_task.sum(1) * p.shape[1]
            else:
                sums, counts = sums.sum(0, keepdim=True), counts.sum(0, keepdim=True)
                tokens = routes.of_task[:, 0] * (p.shape[0] * p.shape[1])
            routes.record(self, Record(routes.of_task @ sums, routes.of_task @ counts, tokens))


def update_usage(
    usages: Sequence[ExpertUsage], passes: Sequence[Sequence[Record]], momentum: float
) -> tuple[Tensor, Tensor]:
    """Move the statistics of all layers on by one step, and give what the mutual-information loss needs.

    Sums and counts of all processes are added in one call, so that all of them hold the same statistics.

    Args:
        usages: of the layers.
        passes: for every forward pass of the step the records of the layers.
        momentum: how much of the old statistics stays.

    Returns:
        ``(layers, T, E)``: P(e|t) of this process's tokens with its graph, scaled so that the mean over processes is
        that over all tokens; and the running P(e|t). Layers with fewer experts are padded with zeros.
    """
    size = max(usage.load.shape[1] for usage in usages)
    stacked = [torch.stack([_pad(record[part], size) for record in records]) for records in passes for part in (0, 1)]
    sums, picks = (torch.stack(stacked[part::2]).sum(0) for part in (0, 1))
    tokens = torch.stack([torch.stack([record.tokens for record in records]) for records in passes]).sum(0)
    own = torch.cat([sums.detach(), picks, tokens[..., None]], dim=-1)
    total = own.clone()
    all_reduce(total, "sum")
    present = total[..., -1] > 0
    number = total[..., -1].clamp(min=1)[..., None]
    picked = total[..., size:-1].sum(-1, keepdim=True).clamp(min=1)
    means = torch.stack([total[..., :size] / number, total[..., size:-1] / picked])
    updates = torch.stack([usage.updates for usage in usages])
    keep = torch.where(updates > 0, momentum, 0.0)
    keep = torch.where(present, keep, 1.0)[..., None]
    old = torch.stack([torch.stack([_pad(part, size) for part in (use.probability, use.load)]) for use in usages], 1)
    new = keep * old + (1 - keep) * means
    with torch.no_grad():
        for layer, usage in enumerate(usages):
            experts = usage.load.shape[1]
            usage.probability.copy_(new[0, layer, :, :experts])
            usage.load.copy_(new[1, layer, :, :experts])
            usage.updates.copy_(updates[layer] + present[layer])
    return sums * (get_world_size() / number), new[0]


def mutual_information_loss(current: Tensor, running: Tensor, updates: Tensor) -> Tensor:
    """Minus the mutual information of tasks and experts, summed over layers.

    I = sum over t and e of P(t,e) log(P(t,e) / (P(t) P(e))) with P(t,e) = P(t) P(e|t), where all tasks that were seen
    are equally probable. It is large when every task uses all of its experts sharply and tasks use different ones.
    Value and logarithms are those of the running statistics; the gradient is that of I at these in the direction of
    ``current``. When every task is present and nothing is remembered it is the gradient of I itself. Ours: it is not
    damped by the momentum.

    Args:
        current: ``(layers, T, E)`` P(e|t) of the step, with its graph; zeros for absent tasks.
        running: ``(layers, T, E)`` P(e|t) without a graph.
        updates: ``(layers, T)`` how often a task was seen.

    Returns:
        A scalar.

    Reference:
        Mod-Squad: Designing Mixtures of Experts As Modular Multi-Task Learners (CVPR 2023).
    """
    seen = (updates > 0).float()
    p_task = seen / seen.sum(-1, keepdim=True).clamp(min=1)
    joint = running * p_task[..., None]
    expected = p_task[..., None] * joint.sum(-2, keepdim=True)
    # Where the joint probability is zero its term is zero, and so is the current probability.
    ratio = torch.where(joint > 0, joint / expected.where(joint > 0, 1.0), 1.0).log()
    own = current * p_task[..., None]
    return -(joint * ratio).sum() - ((own - own.detach()) * ratio).sum()


def entropy(probability: Tensor) -> Tensor:
    """Entropy over the last dimension, in nats."""
    return -torch.special.xlogy(probability, probability).sum(-1)


def _pad(values: Tensor, size: int) -> Tensor:
    return F.pad(values, (0, size - values.shape[-1]))
