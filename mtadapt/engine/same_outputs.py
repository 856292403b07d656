"""Comparison of two models to the bit."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from prettytable import PrettyTable
from torch import Tensor

from mtadapt.engine.measure import build_model
from mtadapt.errors import MTAdaptError
from mtadapt.models.image_groups import split_samples
from mtadapt.models.moe.surgery.configs import keep_tasks, routers_of
from mtadapt.models.moe.surgery.layers import Experts
from mtadapt.models.tasks import native_samples


class Comparison:
    """What was compared, and what differs.

    Attributes:
        counts: kind and task to the number of tensors and of values in them.
        differences: a line for every one that differs.
    """

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], list[int]] = {}
        self.differences: list[str] = []

    def add(self, kind: str, task: str, place: str, a: Any, b: Any) -> None:
        """Compare two values: tensors, samples, or dictionaries and sequences of these."""
        first, second = dict(_leaves(a)), dict(_leaves(b))
        for name in {**first, **second}:
            if name not in first or name not in second:
                self.differences.append(f"{kind} {task} {place}{name}: only one of the models has it")
                continue
            one, two = first[name], second[name]
            count = self.counts.setdefault((kind, task), [0, 0])
            count[0] += 1
            count[1] += one.numel() if isinstance(one, Tensor) else 1
            if not _equal(one, two):
                self.differences.append(f"{kind} {task} {place}{name}{_distance(one, two)}")

    def table(self) -> str:
        """A row for each kind and task."""
        table = PrettyTable(["compared", "task", "tensors", "values"])
        table.align = "r"
        table.align["compared"] = table.align["task"] = "l"
        for (kind, task), (tensors, values) in self.counts.items():
            table.add_row([kind, task, f"{tensors:,}", f"{values:,}"])
        return table.get_string()


def compare_weights(
    config_a: Config,
    a: Mapping[str, Tensor],
    config_b: Config,
    b: Mapping[str, Tensor],
    tasks: Sequence[str],
    found: Comparison,
) -> None:
    """Compare what the first model uses for some tasks with the same entries of the second.

    The second may have more: banks of experts, routers, heads, and columns of the statistics, which are zero in the
    rows of the first one's routers.

    Args:
        config_a: of the first model.
        a: its state dict.
        config_b: of the second model.
        b: its state dict.
        tasks: names of the tasks.
        found: is added to.
    """
    experts = Experts.of(config_a), Experts.of(config_b)
    routers = list(dict.fromkeys(name for task in tasks for name in routers_of(config_a, task)))
    for key, value in a.items():
        parts = key.split(".")
        if parts[0] == "loss_balancer" or (parts[0] == "tasks" and parts[1] not in tasks):
            continue
        if parts[0] == "backbone" and "routers" in parts and parts[parts.index("routers") + 1] not in routers:
            continue
        task = parts[1] if parts[0] == "tasks" else "shared"
        if key not in b:
            found.differences.append(f"weights {task} {key}: the second model does not have it")
        elif parts[0] == "backbone" and "usage" in parts:
            for router in routers:
                if router not in experts[1].routers:
                    found.differences.append(f"weights {task} {key}: the second model has no row of {router!r}")
                    continue
                one, two = (each[key][own.routers.index(router)] for each, own in zip((a, b), experts, strict=True))
                width = len(one) if one.dim() else 0
                rest = two[width:] if one.dim() else two.new_zeros(0)
                found.add("weights", task, f"{key}[{router}]", one, two[:width] if one.dim() else two)
                if rest.any():
                    found.differences.append(f"weights {task} {key}[{router}]: uses experts that are new")
        else:
            found.add("weights", task, key, value, b[key])


def compare_outputs(
    config_a: Config,
    a: Mapping[str, Tensor],
    config_b: Config,
    b: Mapping[str, Tensor],
    tasks: Sequence[str],
    found: Comparison,
    batches: int | None = None,
) -> None:
    """Compare features, raw outputs of the heads and predictions on the first config's validation images.

    Args:
        config_a: of the first model.
        a: its state dict.
        config_b: of the second model.
        b: its state dict.
        tasks: names of the tasks.
        found: is added to.
        batches: stop after so many; all by default.

    Raises:
        MTAdaptError: without validation data.
    """
    models = [build_model(config_a, a), build_model(config_b, b)]
    config = copy.deepcopy(config_a)
    if not config.get("val_dataloader"):
        raise MTAdaptError(f"{config_a.filename}: no val_dataloader, whose images are compared")
    keep_tasks(config, tasks, splits=("val",))
    with DefaultScope.overwrite_default_scope("mtadapt"), torch.no_grad():
        loader = Runner.build_dataloader(config.val_dataloader, seed=0)
        for number, batch in enumerate(loader):
            if number == batches:
                break
            both = [_outputs(model, copy.deepcopy(batch), tasks) for model in models]
            for key in both[0]:
                found.add(*key, f"batch {number} ", both[0][key], both[1].get(key))


def _outputs(model: Any, batch: dict, tasks: Sequence[str]) -> dict[tuple[str, str], Any]:
    """Kind and task to what the model gives for a batch."""
    data = model.data_preprocessor(batch, False)
    groups = split_samples(data["inputs"], data["data_samples"])
    outputs: dict[tuple[str, str], Any] = {}
    for name in tasks:
        task = model.tasks[name]
        for place, (images, samples) in enumerate(groups):
            if not any(name in sample.labelled_tasks for sample in samples):
                continue
            features = model.extract_features(images, name)
            raw = task(features[task.backbone.source], native_samples(task, copy.deepcopy(samples)), mode="tensor")
            outputs.setdefault(("features", name), {})[place] = features
            outputs.setdefault(("raw outputs", name), {})[place] = raw
    predicted = model.predict(data["inputs"], data["data_samples"])
    for name in tasks:
        own = [sample.task(name) for sample in predicted if name in sample.labelled_tasks]
        if own:
            outputs["predictions", name] = own
    return outputs


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything inside a value, with where it is."""
    if isinstance(value, BaseDataElement):
        value = dict(value.items())
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for number, each in enumerate(value):
            yield from _leaves(each, f"{name}/{number}")
    else:
        yield name, value


def _distance(a: Any, b: Any) -> str:
    """The largest difference of two tensors, in words."""
    if not (isinstance(a, Tensor) and isinstance(b, Tensor)) or a.shape != b.shape:
        return ", of another kind or shape"
    return f", by up to {float((a.double() - b.double()).abs().max()):.3g}"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and bool(a == b)
