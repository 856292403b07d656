"""What a training costs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.engine.strategies.outline import plain_model
from mtadapt.registry import HOOKS

#: Name of the file in the work directory, in that of each stage where there are stages.
COST = "cost.json"


@HOOKS.register_module()
class CostHook(Hook):
    """Write ``cost.json`` into the work directory: what the training has cost so far.

    - ``seconds``: of the training with its validations and checkpoints, without the time before its first step. A
      training that resumes goes on counting, so steps that were lost and done again count twice.
    - ``devices``, ``device``: number of processes, and what the main one runs on.
    - ``parameters``, ``trainable``: of the model.
    - ``peak_memory_mib``: largest memory that tensors of the main process took on a GPU, None on a CPU.

    Args:
        interval: seconds between two writings; what a process that is killed did since the last one is not counted.
    """

    priority = "VERY_HIGH"

    def __init__(self, interval: float = 10.0) -> None:
        self.interval = interval
        self._before = 0.0
        self._start = 0.0
        self._written = 0.0
        self._fixed: dict[str, Any] = {}

    def before_train(self, runner: Runner) -> None:
        """Start the clock, and read what was counted before the training was resumed."""
        path = Path(runner.work_dir, COST)
        resumed = bool(runner._resume) and path.is_file()
        self._before = float(json.loads(path.read_text())["seconds"]) if resumed else 0.0
        parameters = list(plain_model(runner).parameters())
        cuda = torch.cuda.is_available()
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        self._fixed = dict(
            devices=get_world_size(),
            device=torch.cuda.get_device_name() if cuda else "cpu",
            parameters=sum(each.numel() for each in parameters),
            trainable=sum(each.numel() for each in parameters if each.requires_grad),
        )
        self._start = self._written = time.monotonic()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Write the file now and then."""
        if time.monotonic() - self._written >= self.interval:
            self._write(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the file, if the validation belongs to a training."""
        if self._fixed:
            self._write(runner)

    def after_train(self, runner: Runner) -> None:
        """Write the file at the end."""
        self._write(runner)

    def _write(self, runner: Runner) -> None:
        self._written = time.monotonic()
        if not is_main_process():
            return
        peak = round(torch.cuda.max_memory_allocated() / 2**20) if torch.cuda.is_available() else None
        seconds = round(self._before + self._written - self._start, 2)
        content = dict(seconds=seconds, **self._fixed, peak_memory_mib=peak)
        write_atomically(Path(runner.work_dir, COST), (json.dumps(content, indent=1) + "\n").encode())
