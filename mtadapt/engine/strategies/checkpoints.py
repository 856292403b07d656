"""Checkpoints of a strategy, as MMEngine's runner writes them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import mmengine
from mmengine.dist import is_main_process
from mmengine.runner import save_checkpoint

import mtadapt.engine.checkpoints  # noqa: F401  registers the backend


class AtomicCheckpoints:
    """For a strategy: one file with all parameters, there in whole or not at all."""

    model_state_dict: Callable[[], dict]
    optim_state_dict: Callable[[], dict]
    scheduler_state_dict: Callable[[], Any]
    seed: int

    def save_checkpoint(
        self,
        filename: str,
        *,
        save_optimizer: bool = True,
        save_param_scheduler: bool = True,
        extra_ckpt: dict | None = None,
        callback: Callable[[dict], None] | None = None,
    ) -> None:
        """Gather the state from all processes and write it on the first one.

        Args:
            filename: of the checkpoint.
            save_optimizer: whether its state is saved.
            save_param_scheduler: whether the state of the schedules is saved.
            extra_ckpt: what the runner adds, with its ``meta``.
            callback: is given the checkpoint before it is written.
        """
        checkpoint: dict = dict(state_dict=self.model_state_dict())
        if save_optimizer and hasattr(self, "optim_wrapper"):
            checkpoint["optimizer"] = self.optim_state_dict()
        if save_param_scheduler and hasattr(self, "param_schedulers"):
            checkpoint["param_schedulers"] = self.scheduler_state_dict()
        checkpoint.update(extra_ckpt or {})
        checkpoint["meta"] = dict(
            checkpoint.get("meta") or {},
            seed=self.seed,
            time=time.strftime("%Y%m%d_%H%M%S"),
            mmengine=mmengine.__version__,
        )
        if callback is not None:
            callback(checkpoint)
        if is_main_process():
            write_checkpoint(checkpoint, filename)


def write_checkpoint(checkpoint: dict, filename: str) -> None:
    """Write a checkpoint with :class:`mtadapt.engine.checkpoints.AtomicBackend`, or where its address says."""
    backend = None if "://" in filename else dict(backend="atomic")
    save_checkpoint(checkpoint, filename, backend_args=backend)
