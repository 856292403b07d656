"""MMEngine's runner with the frozen parts of one stage."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.model import is_model_wrapper
from mmengine.optim import BaseOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import nn

from mtadapt.engine.freezing import freeze, modules_to_freeze, trainable_without
from mtadapt.errors import MTAdaptError, first_line
from mtadapt.registry import RUNNERS


class _KeepFrozen(Hook):
    """Put frozen modules back into evaluation mode, which the loops leave by ``model.train()``."""

    def __init__(self, frozen: Sequence[nn.Module]) -> None:
        self.frozen = frozen

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Undo ``model.train()`` for frozen modules."""
        for module in self.frozen:
            if module.training:
                module.training = False


@RUNNERS.register_module()
class StageRunner(Runner):
    """The standard runner, but for what has to happen while it is built.

    Parts are frozen before the model is wrapped, so that :class:`torch.nn.parallel.DistributedDataParallel` waits for
    no gradient of theirs, and their parameters are not in the optimizer. ``cfg.stage`` holds the name of the stage,
    what it freezes and what inside that goes on training.
    """

    def build_model(self, model: nn.Module | dict) -> nn.Module:
        """Build the model and freeze the parts of the stage.

        Raises:
            MTAdaptError: when the stage freezes an unknown module or leaves nothing to train.
        """
        built = super().build_model(model)
        _check_freeze(built, self.cfg.stage)
        self._all_trainable = [parameter for parameter in built.parameters() if parameter.requires_grad]
        self.frozen = freeze(built, self.cfg.stage["freeze"], self.cfg.stage["freeze_except"])
        return built

    def check_stages(self, configs: Sequence[Config]) -> None:
        """Find the mistakes of the stages to come before the first of them trains.

        Args:
            configs: of this stage and the following ones.

        Raises:
            MTAdaptError: when a stage freezes an unknown module or leaves nothing to train, or its optimizer or
                schedule cannot be built.
        """
        model = self.model.module if is_model_wrapper(self.model) else self.model
        # Without what this stage freezes, which another one may train.
        for parameter in self._all_trainable:
            parameter.requires_grad = True
        for config in configs:
            _check_freeze(model, config.stage)
            self._check_optimizer(config)
        freeze(model, self.cfg.stage["freeze"], self.cfg.stage["freeze_except"])

    def _check_optimizer(self, config: Config) -> None:
        own: dict = self.optim_wrapper  # type: ignore[has-type]
        try:
            self.optim_wrapper = self.build_optim_wrapper(copy.deepcopy(config.optim_wrapper))
            self.build_param_scheduler(copy.deepcopy(config.param_scheduler))
        except (KeyError, TypeError, ValueError, AssertionError) as error:
            raise MTAdaptError(
                f"stage {config.stage.name!r}: optim_wrapper or param_scheduler cannot be built: {first_line(error)}"
            ) from error
        finally:
            self.optim_wrapper = own

    def register_hooks(self, default_hooks: dict | None = None, custom_hooks: list | None = None) -> None:
        """Register the config's hooks, and the one that keeps the frozen parts in evaluation mode."""
        super().register_hooks(default_hooks, custom_hooks)
        self.register_hook(_KeepFrozen(self.frozen), priority="VERY_HIGH")

    def build_optim_wrapper(self, optim_wrapper: dict | OptimWrapper) -> OptimWrapper | OptimWrapperDict:
        """Build the optimizer over the parameters that train."""
        wrapper: BaseOptimWrapper = super().build_optim_wrapper(optim_wrapper)
        optimizers = [part.optimizer for part in wrapper.values()] if isinstance(wrapper, OptimWrapperDict) else None
        for optimizer in optimizers or [wrapper.optimizer]:
            for group in optimizer.param_groups:
                group["params"] = [parameter for parameter in group["params"] if parameter.requires_grad]
            optimizer.param_groups[:] = [group for group in optimizer.param_groups if group["params"]]
        return wrapper


def _check_freeze(model: nn.Module, stage: dict) -> None:
    try:
        if not trainable_without(model, modules_to_freeze(model, stage["freeze"], stage["freeze_except"])):
            raise MTAdaptError(f"freeze={list(stage['freeze'])} leaves nothing to train; leave a part out of it")
    except MTAdaptError as error:
        raise MTAdaptError(f"stage {stage['name']!r}: {error}") from error
