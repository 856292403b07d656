"""The table of all metrics at the end of a validation or test."""

from __future__ import annotations

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mtadapt.evaluation import format_table
from mtadapt.registry import HOOKS


@HOOKS.register_module()
class MetricTableHook(Hook):
    """Log one table of all tasks after every validation and test."""

    priority = "LOWEST"

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log the table."""
        if metrics:
            runner.logger.info(f"Metrics of all tasks\n{format_table(metrics)}")

    after_test_epoch = after_val_epoch
