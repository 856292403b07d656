"""Parameters of a task rest in the steps in which nothing is labelled for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn
from torch.optim import Optimizer

from mtadapt.models.image_groups import labelled_by_source
from mtadapt.models.multi_task_model import MultiTaskModel
from mtadapt.registry import HOOKS


@HOOKS.register_module()
class AbsentTaskHook(Hook):
    """Leave out of an update the heads and routers of tasks that none of its sources can label.

    A task without labels has a zero loss, so that every process receives a gradient for every parameter. An optimizer
    with momentum would move the parameters on by what earlier steps have left, LAMB even at full speed, and weight
    decay would act: a head would learn by another recipe the fewer of the steps are its own. Before the optimizer steps
    their gradients are removed, and PyTorch's optimizers pass over parameters without one.

    What a step can label is what its sources can label (``source_tasks`` in the samples), the same on all processes;
    batches that do not tell it, from an ordinary dataset, are left alone. With gradient accumulation all batches of the
    window count. A loss balancer's parameters, which may be shared by tasks, are left alone too.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._parameters: dict[str, list[nn.Parameter]] = {}
        #: Tasks that the window can label; None when a batch did not tell.
        self._labelled: set[str] | None = set()
        self._handles: list[Any] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the optimizer's steps."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not isinstance(model, MultiTaskModel):
            return
        self._labelled = set()
        self._parameters = {name: model.task_parameters(name) for name in model.tasks}
        wrapper = runner.optim_wrapper
        for part in wrapper.values() if isinstance(wrapper, Mapping) else [wrapper]:
            if isinstance(part.optimizer, Optimizer):
                self._handles.append(part.optimizer.register_step_pre_hook(self._rest))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Add what the batch can label."""
        samples: Sequence = data_batch["data_samples"] if isinstance(data_batch, dict) else ()
        known = labelled_by_source(samples) if samples else None
        self._labelled = None if known is None or self._labelled is None else self._labelled | known

    def _rest(self, *args: Any) -> None:
        labelled = self._labelled
        if labelled is not None:
            # Tasks with equal routes have their routers in common.
            busy = {id(each) for name in labelled for each in self._parameters.get(name, ())}
            for parameters in self._parameters.values():
                for parameter in parameters:
                    if id(parameter) not in busy:
                        parameter.grad = None
        self._labelled = set()

    def after_train(self, runner: Runner) -> None:
        """Watch no longer."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
