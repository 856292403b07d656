"""Weights from the rate at which the loss of each task falls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.losses.balancing.balancer import LossBalancer
from mtadapt.registry import MODELS


@MODELS.register_module()
class DWA(LossBalancer):
    r"""Dynamic weight average: :math:`K \operatorname{softmax}(r / T)` of the ratios of each task's last mean losses.

    The ratio of a task is its mean loss in the last window over that in the window before, and 1 until there are two.

    Ours: windows are counted in iterations, not epochs, which co-trained sources do not have in common; means are over
    the processes and over the batches with labels of the task; a task without labels in a window keeps its ratio; a
    loss that is not finite is left out.

    Args:
        tasks: names of the tasks.
        interval: iterations of a window; the paper's is an epoch. Too few follow the noise of single batches.
        temperature: T; the larger, the more even the weights.

    Raises:
        MTAdaptError: for an interval or a temperature that is not positive.

    Reference:
        Liu, Johns, Davison, End-to-End Multi-Task Learning with Attention, CVPR 2019, equation 7.
    """

    iteration: Tensor
    sums: Tensor
    counts: Tensor
    means: Tensor
    ratios: Tensor

    def __init__(self, tasks: Sequence[str], interval: int = 500, temperature: float = 2.0) -> None:
        super().__init__(tasks)
        if not isinstance(interval, int) or interval < 1:
            raise MTAdaptError(f"loss_balancer.interval={interval}: DWA's window is a number of iterations, e.g. 500")
        if not temperature > 0:
            raise MTAdaptError(f"loss_balancer.temperature={temperature}: DWA needs a positive one, e.g. 2.0")
        self.interval = interval
        self.temperature = temperature
        number = len(self.tasks)
        self.register_buffer("iteration", torch.tensor(0))
        self.register_buffer("sums", torch.zeros(number))
        self.register_buffer("counts", torch.zeros(number))
        # Of each task's last window with labels; 0 until there is one.
        self.register_buffer("means", torch.zeros(number))
        self.register_buffer("ratios", torch.ones(number))

    def weigh(self, present: Mapping[str, Tensor], features: Sequence[Tensor]) -> dict[str, Tensor]:
        """Weights of the window, after which the losses are added to it."""
        weights = len(self.tasks) * torch.softmax(self.ratios / self.temperature, 0)
        if self.learning:
            self._observe(present)
        return dict(zip(self.tasks, weights, strict=True))

    @torch.no_grad()
    def _observe(self, present: Mapping[str, Tensor]) -> None:
        for number, task in enumerate(self.tasks):
            if task in present:
                loss = present[task].detach().float()
                finite = loss.isfinite()
                self.sums[number] += torch.where(finite, loss, torch.zeros_like(loss))
                self.counts[number] += finite
        self.iteration += 1
        if int(self.iteration) % self.interval == 0:
            self._close_window()

    def _close_window(self) -> None:
        both = torch.stack([self.sums, self.counts])
        all_reduce(both)
        sums, counts = both
        seen = counts > 0
        means = torch.where(seen, sums / counts.clamp(min=1), self.means)
        self.ratios.copy_(torch.where(seen & (self.means > 0), means / self.means, self.ratios))
        self.means.copy_(means)
        self.sums.zero_()
        self.counts.zero_()
