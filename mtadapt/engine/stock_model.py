"""One task of a trained model as a model of mmdet, mmseg or mmpretrain itself."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import Tensor

from mtadapt.engine.stock_data import stock_data
from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.surgery import CONFIG_FOLDER, prune
from mtadapt.models.moe.surgery.configs import check_task
from mtadapt.registry import MODELS

State = dict[str, Tensor]


def export_task(config: Config, state: Mapping[str, Tensor], task: str) -> tuple[Config, State]:
    """Take one task out of a multi-task model, as a stock config and its state dict.

    Of a backbone with experts, those that the task's router sees are kept.

    Args:
        config: of the run that wrote the checkpoint.
        state: its state dict.
        task: name of the task.

    Returns:
        What :func:`stock_model` gives; the weights are to be ``model.pth`` beside the config.

    Raises:
        MTAdaptError: for an unknown task, one that mixes several routers, or an adapter whose prompts would be lost
            with the experts of their tasks.
    """
    check_task(config, task)
    if _routers(state):
        config, state = prune(config, state, [task])
    return stock_model(config, state, task, "model.pth")


def stock_model(
    config: Config, state: Mapping[str, Tensor], task: str | None = None, weights: str = "stock.pth"
) -> tuple[Config, State]:
    """Turn a task of a model with at most one router into a stock config and its state dict.

    Backbone, shared neck, adapters and the task's own neck become the backbone and the necks of the stock model, so
    predictions and losses are those of the task. What belongs to the multi-task training is left out: the weights of
    the losses and their balancer, the losses of a backbone's experts, and the alignment losses of an LVAdapter. The
    adapter itself stays whole, with the prompts of all tasks, because the features of a task attend to all of them.

    The library's own tools run the config; of this package it needs the backbone, and the shared neck, the adapters
    and the dataset where these are of this package. Where the data cannot be told, the config has the model alone; see
    :func:`~mtadapt.engine.stock_data.stock_data`.

    Args:
        config: with a :class:`~mtadapt.models.MultiTaskModel`.
        state: its state dict.
        task: name of the task; the only one by default.
        weights: name of the file of weights beside the config.

    Raises:
        MTAdaptError: when there are several routers, or several tasks and none is named.
    """
    tasks = [*config.model.tasks] if task is None else [task]
    routers = _routers(state)
    if len(tasks) > 1 or len(routers) > 1:
        raise MTAdaptError(
            f"a stock config has one task and one router; here are tasks {', '.join(tasks)} and routers "
            f"{', '.join(routers) or 'none'}"
        )
    name = tasks[0]
    model = copy.deepcopy(config.model.tasks[name])
    library = model.pop("_scope_", None) or model.type.split(".")[0]
    for key in ("data_preprocessor", "pretrained"):
        # As in the multi-task model, which has its own.
        model.pop(key, None)
    shared = model.pop("backbone")
    necks, prefixes = _necks(config, name, model.pop("neck", None), shared, library)
    stock = ConfigDict(
        type=model.pop("type"),
        data_preprocessor=_preprocessor(config.model.get("data_preprocessor") or {}, library, model),
        backbone=dict(untrained(copy.deepcopy(config.model.backbone)), _scope_="mtadapt"),
        neck=necks[0] if len(necks) == 1 else necks or None,
        **model,
    )
    if stock.neck is None and library != "mmdet":
        del stock["neck"]
    new = stock_data(config, name, library)
    new.update(
        default_scope=library,
        custom_imports=dict(imports=["mtadapt"], allow_failed_imports=False),
        model=stock,
        load_from=f"{CONFIG_FOLDER}/{weights}",
    )
    return Config(new), _rename(state, name, prefixes)


def _routers(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the routers of a backbone with experts."""
    parts = (name.partition(".routers.") for name in state if name.startswith("backbone."))
    return list(dict.fromkeys(rest.split(".")[0] for _, found, rest in parts if found))


def untrained(node: Any) -> Any:
    """The config of a backbone, or of a part of it, without what would load weights when it is built or initialised."""
    if isinstance(node, (list, tuple)):
        return [untrained(each) for each in node]
    if not isinstance(node, dict):
        return node
    new = ConfigDict({key: untrained(value) for key, value in node.items()})
    if (new.get("init_cfg") or {}) and "Pretrained" in str(new.init_cfg):
        new.pop("init_cfg")
    kind = MODELS.get(new.type) if isinstance(new.get("type"), str) else None
    if kind is not None and "pretrained" in inspect.signature(kind).parameters:
        new.pretrained = None
    return new


def _necks(
    config: Config, task: str, own: Any, shared: Mapping[str, Any], library: str
) -> tuple[list[Any], dict[str, str]]:
    """The necks that follow each other, and where their weights go: old prefix to new prefix."""
    parts: list[tuple[str, Any, str]] = []
    if shared.get("source", "neck") == "neck":
        for name in ("neck", "adapter"):
            given = config.model.get(name)
            for number, part in enumerate(given if isinstance(given, (list, tuple)) else [given] if given else []):
                prefix = f"{name}.{number}." if isinstance(given, (list, tuple)) else f"{name}."
                parts.append((prefix, part, "mtadapt"))
    if shared.get("indices") is not None:
        parts.append(("", dict(type="mtadapt.SharedFeatures", indices=shared["indices"]), "mtadapt"))
    for number, part in enumerate(own if isinstance(own, (list, tuple)) else [own] if own else []):
        prefix = f"tasks.{task}.neck.{number}." if isinstance(own, (list, tuple)) else f"tasks.{task}.neck."
        parts.append((prefix, part, library))
    necks = [dict(copy.deepcopy(part), _scope_=part.get("_scope_", scope)) for _, part, scope in parts]
    new = (lambda number: "neck.") if len(parts) == 1 else (lambda number: f"neck.{number}.")
    return necks, {prefix: new(number) for number, (prefix, _, _) in enumerate(parts) if prefix}


def _rename(state: Mapping[str, Tensor], task: str, necks: Mapping[str, str]) -> State:
    prefixes = {**necks, f"tasks.{task}.": "", "backbone.": "backbone."}
    new = {}
    for key, value in state.items():
        found = next((prefix for prefix in prefixes if key.startswith(prefix)), None)
        if found is not None:
            new[prefixes[found] + key[len(found) :]] = value
    return new


def _preprocessor(given: Mapping[str, Any], library: str, model: Mapping[str, Any]) -> dict:
    """The library's own data preprocessor with the same images."""
    images = {key: given[key] for key in ("mean", "std") if key in given}
    divisor, value = given.get("pad_size_divisor", 1), given.get("pad_value", 0)
    if library == "mmpretrain":
        head = model.get("head") or {}
        classes = {"num_classes": head["num_classes"]} if "num_classes" in head else {}
        # Its name for what swaps the channels, whichever way they are.
        colours = dict(to_rgb=given.get("bgr_to_rgb", False) or given.get("rgb_to_bgr", False))
        return dict(
            type="ClsDataPreprocessor", **images, **colours, pad_size_divisor=divisor, pad_value=value, **classes
        )
    colours = dict(bgr_to_rgb=given.get("bgr_to_rgb", False), rgb_to_bgr=given.get("rgb_to_bgr", False))
    if library == "mmdet":
        return dict(type="DetDataPreprocessor", **images, **colours, pad_size_divisor=divisor, pad_value=value)
    return dict(
        type="SegDataPreProcessor",
        **images,
        **colours,
        size_divisor=divisor,
        pad_val=value,
        seg_pad_val=given.get("seg_pad_value", 255),
        test_cfg=dict(size_divisor=divisor),
    )
