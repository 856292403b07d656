"""Distributed data parallel through MMEngine's flexible runner, on CPU processes too."""

from __future__ import annotations

import torch
from mmengine._strategy import DDPStrategy as StockDDPStrategy
from torch import nn

from mtadapt.engine.strategies.checkpoints import AtomicCheckpoints
from mtadapt.registry import STRATEGIES


@STRATEGIES.register_module()
class DDPStrategy(AtomicCheckpoints, StockDDPStrategy):
    """MMEngine's strategy, on CPU processes too."""

    model_wrapper: dict | None

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        if self.model_wrapper is None and not torch.cuda.is_available():
            self.model_wrapper = dict(type="MMDistributedDataParallel", broadcast_buffers=False, device_ids=None)
        return super()._wrap_model(model)
