"""DeepSpeed for the multi-task model, with the optimizer settings of ordinary configs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine._strategy import DeepSpeedStrategy as StockDeepSpeedStrategy
from mmengine._strategy.deepspeed import DeepSpeedOptimWrapper as StockDeepSpeedOptimWrapper
from mmengine.dist import is_main_process
from mmengine.optim import BaseOptimWrapper
from mmengine.runner import CheckpointLoader, weights_to_cpu
from torch import nn

from mtadapt.engine.strategies.checkpoints import write_checkpoint
from mtadapt.engine.strategies.elementwise import check_elementwise
from mtadapt.errors import MTAdaptError
from mtadapt.registry import OPTIM_WRAPPERS, STRATEGIES

#: Beside DeepSpeed's own files in the folder of a checkpoint.
WEIGHTS = "weights.pth"


@OPTIM_WRAPPERS.register_module()
class DeepSpeedOptimWrapper(StockDeepSpeedOptimWrapper):
    """MMEngine's wrapper, which can also say whether the last step updated the parameters."""

    def should_update(self) -> bool:
        """Whether an accumulation window has ended."""
        engine = self.model
        return engine.micro_steps % engine.gradient_accumulation_steps() == 0


@STRATEGIES.register_module()
class DeepSpeedStrategy(StockDeepSpeedStrategy):
    """MMEngine's strategy for configs that name an ``OptimWrapper``, with checkpoints that other runners can use.

    DeepSpeed clips and accumulates gradients itself: ``optim_wrapper.clip_grad`` and ``accumulative_counts`` become its
    ``gradient_clipping`` and ``gradient_accumulation_steps``. Optimizers of torch that it does not know, such as SGD,
    are allowed. A checkpoint is a folder of DeepSpeed's files and ``weights.pth``, the weights alone.

    Args:
        kwargs: of MMEngine's strategy, e.g. ``zero_optimization=dict(stage=2)``.

    Raises:
        MTAdaptError: when DeepSpeed is not installed or does not fit MMEngine, for ZeRO-3, or for optimizer wrappers
            that DeepSpeed cannot replace.
    """

    def __init__(self, **kwargs: Any) -> None:
        if find_spec("deepspeed") is None:
            raise MTAdaptError(
                "strategy.type='DeepSpeedStrategy': deepspeed is not installed; pip install 'deepspeed<0.19', or use "
                "FSDPStrategy"
            )
        stage = (kwargs.get("zero_optimization") or {}).get("stage", 0)
        if stage > 2:
            raise MTAdaptError(
                f"strategy.zero_optimization.stage={stage}: ZeRO-3 shards parameters, and checkpoints of them are not "
                "supported; use stage 1 or 2, or FSDPStrategy"
            )
        try:
            super().__init__(**kwargs)
        except ImportError as error:
            raise MTAdaptError(
                f"strategy.type='DeepSpeedStrategy': deepspeed {version('deepspeed')} does not fit MMEngine ({error}); "
                "pip install 'deepspeed<0.19'"
            ) from error
        self.config.setdefault("zero_allow_untested_optimizer", True)

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> BaseOptimWrapper:
        """Build DeepSpeed's wrapper from the settings of MMEngine's.

        Raises:
            MTAdaptError: for a wrapper that does more than clip and accumulate.
        """
        if (self.config.get("zero_optimization") or {}).get("stage", 0):
            check_elementwise(optim_wrapper, "DeepSpeed's ZeRO")
        settings = copy.deepcopy(optim_wrapper)
        kind = settings.pop("type", "OptimWrapper")
        if kind not in ("OptimWrapper", "DeepSpeedOptimWrapper"):
            remedy = "strategy.bf16=dict(enabled=True)" if kind == "AmpOptimWrapper" else "OptimWrapper, or DDP"
            raise MTAdaptError(f"optim_wrapper.type={kind!r} does not work with DeepSpeed; use {remedy}")
        clip = settings.pop("clip_grad", None)
        if clip:
            if clip.get("type", "norm") != "norm" or clip.get("norm_type", 2) != 2:
                raise MTAdaptError(f"optim_wrapper.clip_grad={dict(clip)}: DeepSpeed clips by the 2-norm; set max_norm")
            self.config.setdefault("gradient_clipping", clip["max_norm"])
        steps = settings.pop("accumulative_counts", 1)
        if steps > 1:
            self.config["gradient_accumulation_steps"] = steps
        return super().build_optim_wrapper(dict(settings, type="DeepSpeedOptimWrapper"), model)

    def save_checkpoint(
        self,
        filename: str,
        *,
        extra_ckpt: dict | None = None,
        callback: Callable[[dict], None] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write a folder: DeepSpeed's files of all processes, and the weights alone.

        Args:
            filename: of the folder.
            extra_ckpt: what the runner adds, with its ``meta``.
            callback: is given the checkpoint, without weights, before it is written.
            kwargs: of MMEngine's strategy.
        """
        extra = dict(extra_ckpt or {})
        extra.setdefault("meta", {})
        if callback is not None:
            callback(extra)
        super().save_checkpoint(filename, extra_ckpt=extra, **kwargs)
        if is_main_process():
            weights = weights_to_cpu(self.model.module_state_dict())
            write_checkpoint(dict(state_dict=weights, meta=extra["meta"]), str(Path(filename, WEIGHTS)))

    def resume(self, filename: str, *, callback: Callable[[dict], None] | None = None, **kwargs: Any) -> dict:
        """Go on from a folder that :meth:`save_checkpoint` wrote.

        Args:
            filename: of the folder.
            callback: is given the checkpoint after DeepSpeed has compared and loaded the weights.
            kwargs: of MMEngine's strategy.

        Raises:
            MTAdaptError: when it is no such folder.
        """
        if not Path(filename, WEIGHTS).is_file():
            raise MTAdaptError(
                f"{filename}: no checkpoint of DeepSpeed, which is a folder; start from it with load_from"
            )
        extra = super().resume(filename, **kwargs)
        if callback is not None:
            callback(dict(extra, state_dict=self.model.module_state_dict()))
        return extra

    def load_checkpoint(
        self,
        filename: str,
        *,
        map_location: Any = "cpu",
        callback: Callable[[dict], None] | None = None,
        **kwargs: Any,
    ) -> dict:
        """Load the weights of a checkpoint of any runner.

        Args:
            filename: a file, or a folder that :meth:`save_checkpoint` wrote.
            map_location: where to load it.
            callback: is given the checkpoint before its weights are loaded.
            kwargs: are not used.
        """
        source = Path(filename, WEIGHTS) if Path(filename, WEIGHTS).is_file() else filename
        checkpoint = CheckpointLoader.load_checkpoint(str(source), map_location)
        if callback is not None:
            callback(checkpoint)
        self.model.module.load_state_dict(checkpoint.get("state_dict", checkpoint), strict=False)
        # DeepSpeed updates copies of its own of the parameters.
        refresh = getattr(self.model.optimizer, "refresh_fp32_params", None)
        if refresh is not None:
            refresh()
        return checkpoint
