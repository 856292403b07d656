"""MMEngine's flexible runner, whose strategy says how the model is spread over processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine._strategy import BaseStrategy
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import BaseLoop, FlexibleRunner, Runner
from torch import nn

from mtadapt.engine.stage_runner import StageRunner
from mtadapt.errors import MTAdaptError
from mtadapt.registry import RUNNERS


def runner_class(config: Config) -> type[Runner] | type[FlexibleRunner]:
    """The class of the runner that trains a config: that of a stage, or of ``runner_type``.

    Args:
        config: ``runner_type`` is ``Runner``, which is the default, or ``FlexibleRunner``, which takes a ``strategy``.

    Raises:
        MTAdaptError: for another ``runner_type``, a strategy that the runner would not read, or stages with a strategy.
    """
    kind = config.get("runner_type") or "Runner"
    if kind not in ("Runner", "FlexibleRunner"):
        raise MTAdaptError(f"runner_type={kind!r}; known: 'Runner', and 'FlexibleRunner' for a strategy")
    if kind == "Runner":
        if config.get("strategy"):
            raise MTAdaptError("strategy is read by runner_type='FlexibleRunner' alone; set it, or leave strategy out")
        return StageRunner if config.get("stage") else Runner
    if config.get("stages") is not None or config.get("stage"):
        raise MTAdaptError(
            "runner_type='FlexibleRunner' trains no stages; leave stages out (stages=None), or use runner_type='Runner'"
        )
    return StrategyRunner


@RUNNERS.register_module()
class StrategyRunner(FlexibleRunner):
    """The flexible runner, with strategies found by their name and mistakes in the model found when it is built."""

    model: nn.Module | dict

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model = self.strategy.build_model(self.model)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build the loop; MMEngine asks a batch sampler for its one size, which several sources do not have."""
        configured = self._train_dataloader
        built = super().build_train_loop(loop)
        sampler = built.dataloader.batch_sampler
        if not hasattr(sampler, "batch_size") and isinstance(configured, Mapping):
            sampler.batch_size = configured.get("batch_size", 1)
        return built

    def build_strategy(self, *args: Any, **kwargs: Any) -> BaseStrategy:
        """Build the strategy; names are first looked for in this package."""
        with DefaultScope.overwrite_default_scope("mtadapt"):
            return super().build_strategy(*args, **kwargs)
