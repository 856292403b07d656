"""What each task has seen so far, in the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from torch import Tensor

from mtadapt.registry import HOOKS


@HOOKS.register_module()
class TaskProgressHook(Hook):
    """Log, for every task, how many labelled samples were trained on and the sum of its losses.

    The counts are those of one process.

    Args:
        interval: iterations between two lines.
    """

    priority = "VERY_LOW"

    def __init__(self, interval: int = 50) -> None:
        self.interval = interval
        self._seen: Counter[str] = Counter()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Count, and write a line at the interval."""
        samples: Sequence = data_batch["data_samples"] if isinstance(data_batch, dict) else ()
        for sample in samples:
            self._seen.update(sample.labelled_tasks)
        if not self.every_n_train_iters(runner, self.interval):
            return
        losses: dict[str, float] = {}
        for name, value in (outputs or {}).items():
            task, _, term = name.partition(".")
            if "loss" in term:
                number = float(value.detach() if isinstance(value, Tensor) else value)
                losses[task] = losses.get(task, 0.0) + number
        if losses:
            parts = [f"{task} {self._seen[task]:,} samples, loss {losses[task]:.4f}" for task in losses]
            runner.logger.info(f"Tasks: {'; '.join(parts)}")

    def after_train(self, runner: Runner) -> None:
        """Say how many samples were skipped."""
        skipped = getattr(runner.train_dataloader.dataset, "num_skipped", 0)
        if skipped:
            runner.logger.warning(f"{skipped:,} samples could not be used and were replaced (on_error='skip')")
