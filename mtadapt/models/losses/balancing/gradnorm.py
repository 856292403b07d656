"""Weights that give the tasks gradients of like norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.dist import all_reduce, get_world_size
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.losses.balancing.balancer import LossBalancer
from mtadapt.registry import MODELS

#: What a half-precision loss is multiplied with before its gradients are taken, that they do not underflow.
HALF_PRECISION_SCALE = 4096.0
#: Least weight; none becomes negative, or so small that its task never comes back.
LEAST_WEIGHT = 1e-3
#: Of the weights' Adam.
BETAS = (0.9, 0.999)
EPS = 1e-8


@MODELS.register_module()
class GradNorm(LossBalancer):
    """Gradient normalisation: weights under which slowly learning tasks have the larger gradients.

    Every iteration moves the weights one step down :math:`sum_i |G_i - mean(G) r_i^alpha|`, with the norm
    :math:`G_i` of the gradient of task i's weighted loss, and :math:`r_i` its loss over its first loss, relative to
    the mean of this over the tasks; then they are scaled to sum to the number of tasks.

    Ours:

    - The gradients are those of the shared features that all tasks read (the neck's if all read those, else the
      backbone's), not of the last shared layer's weights: one more backward pass through the heads (and in the second
      case the neck), none through the backbone. An adapter's alignment losses, which do not pass through these
      features, do not count.
    - The step is one of Adam, so that it does not depend on the scale of the losses.
    - Norms and losses are those of the batches of all processes. A task without labels counts with those of its last
      batch, so that sources may alternate; weights stay 1 until every task has been seen. A step whose norm or loss is
      not finite is left out. Weights are at least 0.001 before they are scaled.

    Args:
        tasks: names of the tasks.
        alpha: strength of the pull towards equal learning rates; the paper uses 0.12 to 1.5.
        lr: learning rate of the weights.

    Raises:
        MTAdaptError: for a setting out of range, and in training when nothing trainable is shared by all tasks.

    Reference:
        Chen et al., GradNorm: Gradient Normalization for Adaptive Loss Balancing in Deep Multitask Networks, ICML
        2018, algorithm 1.
    """

    weights: Tensor
    first: Tensor
    losses: Tensor
    norms: Tensor
    seen: Tensor
    steps: Tensor
    exp_avg: Tensor
    exp_avg_sq: Tensor

    def __init__(self, tasks: Sequence[str], alpha: float = 1.5, lr: float = 0.025) -> None:
        super().__init__(tasks)
        if not alpha >= 0:
            raise MTAdaptError(f"loss_balancer.alpha={alpha}: GradNorm needs 0 or more, e.g. 1.5")
        if not lr > 0:
            raise MTAdaptError(f"loss_balancer.lr={lr}: GradNorm needs a positive step, e.g. 0.025")
        self.alpha = alpha
        self.lr = lr
        number = len(self.tasks)
        self.register_buffer("weights", torch.ones(number))
        # First and last loss and last norm of each task.
        self.register_buffer("first", torch.ones(number))
        self.register_buffer("losses", torch.ones(number))
        self.register_buffer("norms", torch.ones(number))
        self.register_buffer("seen", torch.zeros(number, dtype=torch.bool))
        self.register_buffer("steps", torch.zeros(()))
        self.register_buffer("exp_avg", torch.zeros(number))
        self.register_buffer("exp_avg_sq", torch.zeros(number))

    def weigh(self, present: Mapping[str, Tensor], features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Weights of this batch, after which they make a step."""
        weights = self.weights.clone()
        if self.learning:
            self._observe(present, features)
            self._step()
        return dict(zip(self.tasks, weights, strict=True))

    def _observe(self, present: Mapping[str, Tensor], features: Sequence[Tensor]) -> None:
        features = [level for level in features if level.requires_grad]
        if not features:
            raise MTAdaptError(
                "loss_balancer.type='GradNorm': nothing that trains is shared by all tasks; train the backbone, or use "
                "another balancer in this stage"
            )
        squares, losses, counts = measured = torch.zeros(3, len(self.tasks), device=self.weights.device)
        for number, task in enumerate(self.tasks):
            if task in present:
                squares[number] = _square_norm(present[task], features)
                losses[number] = present[task].detach()
                counts[number] = 1
        all_reduce(measured)
        # Of the loss that is the mean over the processes, whose features lie next to each other.
        norms, losses = squares.sqrt() / get_world_size(), losses / counts.clamp(min=1)
        valid = (counts > 0) & norms.isfinite() & losses.isfinite()
        self.first.copy_(torch.where(valid & ~self.seen, losses, self.first))
        self.losses.copy_(torch.where(valid, losses, self.losses))
        self.norms.copy_(torch.where(valid, norms, self.norms))
        self.seen |= valid

    @torch.no_grad()
    def _step(self) -> None:
        """A step of Adam, once every task has been seen."""
        least = torch.finfo(torch.float32).tiny
        ratios = self.losses / self.first.clamp(min=least)
        rates = ratios / ratios.mean().clamp(min=least)
        weighted = self.weights * self.norms
        gradient = torch.sign(weighted - weighted.mean() * rates**self.alpha) * self.norms
        steps = self.steps + 1
        exp_avg = torch.lerp(gradient, self.exp_avg, BETAS[0])
        exp_avg_sq = torch.lerp(gradient**2, self.exp_avg_sq, BETAS[1])
        direction = exp_avg / (1 - BETAS[0] ** steps) / ((exp_avg_sq / (1 - BETAS[1] ** steps)).sqrt() + EPS)
        moved = (self.weights - self.lr * direction).clamp(min=LEAST_WEIGHT)
        new = dict(weights=moved * len(moved) / moved.sum(), steps=steps, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
        ready = self.seen.all()
        for name, value in new.items():
            buffer: Tensor = getattr(self, name)
            buffer.copy_(torch.where(ready, value, buffer))


def _square_norm(loss: Tensor, features: Sequence[Tensor]) -> Tensor:
    """Squared norm of the gradient of a loss with respect to all features together."""
    if not loss.requires_grad:
        return loss.new_zeros(())
    scale = HALF_PRECISION_SCALE if any(level.dtype == torch.float16 for level in features) else 1.0
    with torch.autocast(loss.device.type, enabled=False):
        gradients = torch.autograd.grad(loss * scale, features, retain_graph=True, allow_unused=True)
        squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
    return torch.stack(squares).sum() / scale**2 if squares else loss.new_zeros(())
