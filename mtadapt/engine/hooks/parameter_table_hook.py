"""How large the parts of a model are, what of them trains, and what they compute."""

from __future__ import annotations

import copy
import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from prettytable import PrettyTable
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from mtadapt.engine.strategies.outline import plain_model
from mtadapt.registry import HOOKS


@HOOKS.register_module()
class ParameterTableHook(Hook):
    """Log, at the first iteration of a training, parameters and computation of every part of the model.

    The parts are the model's children, and the tasks of :class:`~mtadapt.models.MultiTaskModel`. Adapters (modules
    whose ``is_adapter`` is true) inside a part have a row of their own. The computation is that of the prediction on a
    blank image of the size of the batch's first one: convolutions, matrix products and attention, where a
    multiply-add is 2 FLOPs; it stays out of the table when the model is sharded, and, with a warning, when the model
    cannot predict like this. A backbone with experts computes once for every route of the tasks that are predicted.
    The model, its buffers and the states of torch's random generators are as before.
    """

    priority = "LOW"

    def __init__(self) -> None:
        self._due = True

    def before_train(self, runner: Runner) -> None:
        """A new training logs a new table, because other parts may be frozen."""
        self._due = True

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Log the table once."""
        if self._due:
            self._due = False
            self._log(runner, data_batch)

    @master_only
    def _log(self, runner: Runner, data_batch: DATA_BATCH) -> None:
        model = plain_model(runner)
        title, flops = "Parameters", None
        if any(parameter.is_meta for parameter in model.parameters()):
            runner.logger.info(f"{title}\n{parameter_table(model)}")
            return
        try:
            flops = blank_image_flops(model, data_batch)
            size = f"{data_batch['inputs'][0].shape[-1]}x{data_batch['inputs'][0].shape[-2]}"
            title = f"Parameters, and computation for an image of {size}"
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            runner.logger.warning(f"ParameterTableHook: no FLOPs; the prediction on a blank image fails: {reason}")
        runner.logger.info(f"{title}\n{parameter_table(model, flops)}")


def parameter_table(model: nn.Module, flops: dict[str, int] | None = None) -> str:
    """Format the table: a row for every part that has parameters or computes, and the total.

    Args:
        model: the model, not wrapped.
        flops: part to its FLOPs, from :func:`count_flops`; None leaves the column empty.

    Returns:
        Several lines, without a final newline. A parameter that several parts share is counted for the first one.
    """
    table = PrettyTable(["part", "parameters", "trainable", "frozen", "% trainable", "GFLOPs"])
    table.align = "r"
    table.align["part"] = "l"
    total, trainable = _count_parameters(model)
    rows = []
    for part in dict.fromkeys(_parts(model).values()):
        computed = None if flops is None else flops.get(part, 0)
        if total[part] or computed:
            rows.append(_row(part, total[part], trainable[part], computed))
    for row in rows:
        table.add_row(row, divider=row is rows[-1])
    everything = None if flops is None else sum(flops.values())
    table.add_row(_row("total", sum(total.values()), sum(trainable.values()), everything))
    return table.get_string()


def blank_image_flops(model: nn.Module, data_batch: Any) -> dict[str, int]:
    """Count the FLOPs of the prediction for a blank image of the size of the batch's first one.

    Args:
        model: the model, not wrapped.
        data_batch: as the data loader gives it.

    Returns:
        As :func:`count_flops`.
    """
    image = _first_image(data_batch)
    return count_flops(model, lambda: _predict(model, image))


def count_flops(model: nn.Module, forward: Callable[[], Any]) -> dict[str, int]:
    """Count the FLOPs of each part of the model while ``forward`` runs in evaluation mode.

    Heads are often called by their methods, which module hooks do not see; so an operation belongs to the innermost
    module of the model on the call stack.

    Args:
        model: the model, not wrapped.
        forward: runs the model.

    Returns:
        Part, as in :func:`parameter_table`, to its FLOPs.
    """
    counter = FlopCounterMode(display=False)
    by_part = _FlopsByPart(counter, _parts(model))
    # Of the kernels of attention only the plain one is made of operations that are counted on every device.
    with _evaluation(model), sdpa_kernel(SDPBackend.MATH), counter, by_part:
        forward()
    return dict(by_part.flops)


class _FlopsByPart(TorchDispatchMode):
    def __init__(self, counter: FlopCounterMode, parts: dict[nn.Module, str]) -> None:
        super().__init__()
        self.counter = counter
        self.parts = parts
        self.flops: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Callable, types: Sequence[type], args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        before = self.counter.get_total_flops()
        output = func(*args, **(kwargs or {}))
        flops = self.counter.get_total_flops() - before
        if flops:
            self.flops[self._part()] += flops
        return output

    def _part(self) -> str:
        frame = inspect.currentframe()
        while frame is not None:
            caller = frame.f_locals.get("self")
            if isinstance(caller, nn.Module) and caller in self.parts:
                return self.parts[caller]
            frame = frame.f_back
        return next(iter(self.parts.values()))


def _parts(model: nn.Module) -> dict[nn.Module, str]:
    """Every module of the model to its part; the model itself is one, for what it owns besides its children."""
    parts = {model: type(model).__name__}
    for name, child in model.named_children():
        children = child.named_children() if isinstance(child, nn.ModuleDict) else [("", child)]
        for inner, root in children:
            part = f"{name}.{inner}" if inner else name
            whole = getattr(root, "is_adapter", False)
            adapters = [] if whole else [module for module in root.modules() if getattr(module, "is_adapter", False)]
            inside = {module for adapter in adapters for module in adapter.modules()}
            for module in root.modules():
                parts.setdefault(module, f"{part} (adapters)" if module in inside else part)
    return parts


def _count_parameters(model: nn.Module) -> tuple[Counter[str], Counter[str]]:
    """All and trainable elements of each part."""
    total: Counter[str] = Counter()
    trainable: Counter[str] = Counter()
    seen: set[nn.Parameter] = set()
    for module, part in _parts(model).items():
        for parameter in module.parameters(recurse=False):
            if parameter not in seen:
                seen.add(parameter)
                total[part] += parameter.numel()
                trainable[part] += parameter.numel() * parameter.requires_grad
    return total, trainable


def _row(part: str, total: int, trainable: int, flops: int | None) -> list[str]:
    share = f"{100 * trainable / total:.1f}" if total else "-"
    computed = "-" if flops is None else f"{flops / 1e9:,.{2 if flops >= 1e9 else 4}f}"
    return [part, f"{total:,}", f"{trainable:,}", f"{total - trainable:,}", share, computed]


@contextmanager
def _evaluation(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients and with a random state of its own.

    The flags are set one by one, because ``train()`` of some modules does more than that.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = False
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _first_image(data_batch: Any) -> dict:
    """The batch cut to its first sample, with a blank image."""
    inputs, samples = data_batch["inputs"], data_batch.get("data_samples")
    blank = [torch.zeros_like(inputs[0])] if isinstance(inputs, Sequence) else torch.zeros_like(inputs[:1])
    samples = None if samples is None else copy.deepcopy(samples[:1])
    for sample in samples or ():
        # Detectors ask for the scale of the image, which training pipelines without a resize do not pack.
        if isinstance(sample, BaseDataElement) and sample.get("scale_factor") is None:
            sample.set_metainfo(dict(scale_factor=(1.0, 1.0)))
    return dict(inputs=blank, data_samples=samples)


def _predict(model: Any, image: dict) -> None:
    data = model.data_preprocessor(image, False)
    model(**data, mode="predict")
