"""What each task has seen so far, in the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from torch import Tensor

from mtadapt.models.losses.balancing import ROUTING
from mtadapt.registry import HOOKS


@HOOKS.register_module()
class TaskProgressHook(Hook):
    """Log, for every task, how many labelled samples were trained on and the sum of its losses.

    The counts are those of one process. The loss is the mean over the steps since the last line in which the task had
    labels.

    Args:
        interval: iterations between two lines.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._seen: Counter[str] = Counter()
        #: Task to the steps with labels since the last line, and the sum of their losses.
        self._steps: Counter[str] = Counter()
        self._losses: dict[str, Tensor] = {}

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Count, and write a line at the interval."""
        samples: Sequence = data_batch["data_samples"] if isinstance(data_batch, dict) else ()
        for sample in samples:
            self._seen.update(sample.labelled_tasks)
        self._add_losses(outputs or {})
        if not self.every_n_train_iters(runner, self.interval):
            return
        parts = [
            # Branches of a pre-training have losses without labels.
            f"{task} "
            + (f"{self._seen[task]:,} samples, " if self._seen[task] or not self._steps[task] else "")
            + (f"loss {float(loss) / self._steps[task]:.4f}" if self._steps[task] else "none since the last line")
            for task, loss in self._losses.items()
        ]
        if parts:
            runner.logger.info(f"Tasks: {'; '.join(parts)}")
        self._steps.clear()
        self._losses.clear()

    def _add_losses(self, outputs: dict) -> None:
        """Sum on the device; the numbers are fetched when a line is written."""
        labelled = set()
        for name, value in outputs.items():
            task, _, term = name.partition(".")
            if "loss" not in term or task == ROUTING:
                continue
            if term != "loss_absent":
                labelled.add(task)
            self._losses[task] = self._losses.get(task, 0) + torch.as_tensor(value).detach()
        self._steps.update(labelled)

    def after_train(self, runner: Runner) -> None:
        """Say how many samples were skipped."""
        skipped = getattr(runner.train_dataloader.dataset, "num_skipped", 0)
        if skipped:
            runner.logger.warning(f"{skipped:,} samples could not be used and were replaced (on_error='skip')")
