"""Fully sharded data parallel for the multi-task model."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from mmengine._strategy import FSDPStrategy as StockFSDPStrategy
from mmengine.dist import is_distributed
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from torch import nn
from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, FullyShardedDataParallel

from mtadapt.engine.strategies.checkpoints import AtomicCheckpoints
from mtadapt.engine.strategies.elementwise import check_elementwise
from mtadapt.engine.strategies.outline import outline
from mtadapt.errors import MTAdaptError
from mtadapt.models.losses.balancing import GradNorm
from mtadapt.registry import OPTIM_WRAPPERS, STRATEGIES

#: What an optimizer wrapper saves beside these is its own, e.g. the scale of mixed precision.
OPTIMIZER_KEYS = ("state", "param_groups")


@STRATEGIES.register_module()
class FSDPStrategy(AtomicCheckpoints, StockFSDPStrategy):
    """MMEngine's strategy, on CPU processes too, with checkpoints that resume and any ordinary runner can load.

    What differs from MMEngine's: the optimizer is built before the model is wrapped, so that ``paramwise_cfg`` and
    layer-wise constructors see the names and shapes that they know; gradients are clipped by the norm over all
    processes, not over one process's shards; the optimizer's state is loaded in the order of arguments that torch has
    now.

    Args:
        model_wrapper: settings of :class:`mmengine.model.MMFullyShardedDataParallel`, e.g. ``sharding_strategy``
            (``FULL_SHARD``, ``SHARD_GRAD_OP``, ``NO_SHARD``) and ``auto_wrap_policy``, for which
            ``mtadapt.shared_parts_policy`` is made.
        state_dict_cfg: how checkpoints are written; ``full`` is one file with whole parameters.
        kwargs: of MMEngine's strategy.

    Raises:
        MTAdaptError: without several processes' launcher, or for settings with which parts cannot be frozen or
            checkpoints cannot be resumed.
    """

    def __init__(self, *, model_wrapper: dict | None = None, state_dict_cfg: str = "full", **kwargs: Any) -> None:
        wrapper = dict(model_wrapper or {})
        wrapper.setdefault("type", "MMFullyShardedDataParallel")
        if not wrapper.get("use_orig_params", True):
            raise MTAdaptError(
                "strategy.model_wrapper.use_orig_params=False merges parameters, so that parts can neither be frozen "
                "nor have settings of their own; leave it out"
            )
        if state_dict_cfg != "full":
            raise MTAdaptError(
                f"strategy.state_dict_cfg={state_dict_cfg!r}; known: 'full', one file with all parameters"
            )
        if not torch.cuda.is_available():
            wrapper.setdefault("device_id", "cpu")
        super().__init__(model_wrapper=wrapper, state_dict_cfg=state_dict_cfg, **kwargs)
        if not torch.cuda.is_available():
            # Moving to the CPU what is there already would free it.
            self.state_dict_config = FullStateDictConfig(rank0_only=True, offload_to_cpu=False)
            self.optim_state_dict_config = FullOptimStateDictConfig(rank0_only=True, offload_to_cpu=False)
        if not is_distributed():
            raise MTAdaptError("strategy.type='FSDPStrategy' needs processes: tools/dist_train.sh CONFIG GPUS")

    def prepare(self, model: nn.Module | dict, *, optim_wrapper: Any = None, **kwargs: Any) -> tuple:
        """Build, wrap and connect the model, its optimizer and its schedules."""
        self._optim_wrapper_cfg = optim_wrapper
        return super().prepare(model, optim_wrapper=optim_wrapper, **kwargs)

    def _wrap_model(self, model: nn.Module) -> nn.Module:
        _check_balancer(model)
        self.outline = outline(model)
        if self._optim_wrapper_cfg is not None:
            if self.model_wrapper.get("sharding_strategy") != "NO_SHARD":
                check_elementwise(self._optim_wrapper_cfg, "FSDP")
            self._plain_wrapper = super().build_optim_wrapper(_with_sharded_scaler(self._optim_wrapper_cfg), model)
        return super()._wrap_model(model)

    def build_optim_wrapper(self, optim_wrapper: Any, model: nn.Module | None = None) -> OptimWrapper:
        """Take the optimizer over the original parameters, which stay the same objects when the model is sharded."""
        wrapper = self._plain_wrapper
        assert model is not None
        sharded = {id(parameter) for parameter in model.parameters()}
        assert all(id(p) in sharded for group in wrapper.optimizer.param_groups for p in group["params"])
        if wrapper.clip_grad_kwargs and wrapper.grad_name == "grad_norm":
            wrapper._clip_grad = lambda: _clip_by_global_norm(wrapper, model)
        return wrapper

    def optim_state_dict(self) -> dict:
        """State of the optimizer as an ordinary runner saves it; whole on the first process, empty on the others."""
        wrapper = self.optim_wrapper
        state = FullyShardedDataParallel.optim_state_dict(self.model, wrapper.optimizer)
        if not state:
            return {}
        names = [name for group in self._parameter_names() for name in group]
        own = {key: value for key, value in wrapper.state_dict().items() if key not in OPTIMIZER_KEYS}
        return {**_renamed(state, {name: number for number, name in enumerate(names)}), **own}

    def load_optim_state_dict(self, state_dict: dict) -> None:
        """Load what :meth:`optim_state_dict` or an ordinary runner saved.

        Raises:
            MTAdaptError: when the optimizer has other parameters.
        """
        saved, names = [group["params"] for group in state_dict["param_groups"]], self._parameter_names()
        if [len(group) for group in saved] != [len(group) for group in names]:
            raise MTAdaptError(
                f"the checkpoint's optimizer has {sum(map(len, saved))} parameters in {len(saved)} groups, this one "
                f"{sum(map(len, names))} in {len(names)}; resume with the same config, or start anew with load_from"
            )
        keys = {
            old: name for group, own in zip(saved, names, strict=True) for old, name in zip(group, own, strict=True)
        }
        wrapper = self.optim_wrapper
        state = FullyShardedDataParallel.optim_state_dict_to_load(
            self.model, wrapper.optimizer, _renamed(state_dict, keys)
        )
        own = {key: value for key, value in state_dict.items() if key not in OPTIMIZER_KEYS}
        wrapper.load_state_dict({**state, **own})

    def _parameter_names(self) -> list[list[str]]:
        groups = self.optim_wrapper.optimizer.param_groups
        return [[self.id_to_name[id(parameter)] for parameter in group["params"]] for group in groups]


def _renamed(state: dict, keys: Mapping[Any, Any]) -> dict:
    """An optimizer's state in which the parameters have other keys."""
    groups = [dict(group, params=[keys[old] for old in group["params"]]) for group in state["param_groups"]]
    return dict(state={keys[old]: value for old, value in state["state"].items()}, param_groups=groups)


def _with_sharded_scaler(config: dict) -> dict:
    """Mixed precision has to agree over all processes on a scale and on the steps that it skips."""
    config = copy.deepcopy(config)
    kind = config.setdefault("type", "OptimWrapper")
    kind = OPTIM_WRAPPERS.get(kind) if isinstance(kind, str) else kind
    if isinstance(kind, type) and issubclass(kind, AmpOptimWrapper):
        config.setdefault("use_fsdp", True)
    return config


def _check_balancer(model: nn.Module) -> None:
    if isinstance(getattr(model, "loss_balancer", None), GradNorm):
        raise MTAdaptError(
            "loss_balancer.type='GradNorm' takes gradients inside the forward pass, which FSDP does not follow; use "
            "UncertaintyWeighting or DWA, or DDP"
        )


def _clip_by_global_norm(wrapper: OptimWrapper, model: Any) -> None:
    """Every process takes part, also one whose shards have no gradient."""
    norm = model.clip_grad_norm_(**wrapper.clip_grad_kwargs)
    wrapper.message_hub.update_scalar(f"train/{wrapper.grad_name}", float(norm))
