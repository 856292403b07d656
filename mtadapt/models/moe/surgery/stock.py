"""A pruned model as a model of mmdet, mmseg or mmpretrain itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.surgery.configs import CONFIG_FOLDER
from mtadapt.models.moe.surgery.layers import Experts, State

_VISUALIZERS = dict(mmdet="DetLocalVisualizer", mmseg="SegLocalVisualizer", mmpretrain="UniversalVisualizer")


def stock_model(config: Config, state: Mapping[str, Tensor]) -> tuple[Config, State]:
    """Turn a model with one task and one router into a stock config and its state dict.

    The library's own tools run the config; of this package it needs the backbone, and the shared neck where that is of
    this package. The data is the task's source where it is a dataset of the library; else the config has the model
    alone.

    Args:
        config: of :func:`~mtadapt.models.moe.surgery.prune` with one task.
        state: its state dict.

    Raises:
        MTAdaptError: when there are several tasks or routers, or an adapter with prompts.
    """
    if len(config.model.tasks) > 1 or len(Experts.of(config).routers) > 1:
        raise MTAdaptError(
            f"a stock config has one task and one router; here are tasks {', '.join(config.model.tasks)} and routers "
            f"{', '.join(Experts.of(config).routers)}"
        )
    ((task, given),) = config.model.tasks.items()
    model = copy.deepcopy(given)
    library = model.pop("_scope_", None) or model.type.split(".")[0]
    shared = model.pop("backbone")
    necks, prefixes = _necks(config, task, model.pop("neck", None), shared, library)
    stock = ConfigDict(
        type=model.pop("type"),
        data_preprocessor=_preprocessor(config.model.get("data_preprocessor") or {}, library, model),
        backbone=dict(copy.deepcopy(config.model.backbone), _scope_="mtadapt"),
        neck=necks[0] if len(necks) == 1 else necks or None,
        **model,
    )
    if stock.neck is None and library != "mmdet":
        del stock["neck"]
    new = _data(config, task, library)
    new.update(
        default_scope=library,
        custom_imports=dict(imports=["mtadapt"], allow_failed_imports=False),
        model=stock,
        load_from=f"{CONFIG_FOLDER}/stock.pth",
    )
    return Config(new), _rename(state, task, prefixes)


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
        colours = dict(to_rgb=given.get("bgr_to_rgb", False))
        return dict(
            type="ClsDataPreprocessor", **images, **colours, pad_size_divisor=divisor, pad_value=value, **classes
        )
    colours = dict(bgr_to_rgb=given.get("bgr_to_rgb", False))
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


def _data(config: Config, task: str, library: str) -> dict[str, Any]:
    """Loaders, metric and schedule, where the task has one source of the library."""
    keys = ("train_cfg", "val_cfg", "test_cfg", "param_scheduler", "env_cfg", "log_processor", "randomness")
    new: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        loader = copy.deepcopy(config.get(f"{split}_dataloader"))
        sources = dict(loader.dataset.get("sources") or {}) if loader else {}
        source = next(iter(sources.values())).dataset if len(sources) == 1 else None
        if source is None or str(source.get("type")).split(".")[0] != library:
            return {}
        loader.dataset = source
        batches = loader.pop("batch_sampler", None)
        if batches:
            size = batches.batch_size
            loader.batch_size = next(iter(size.values())) if isinstance(size, Mapping) else size
        new[f"{split}_dataloader"] = loader
        if split != "train":
            new[f"{split}_evaluator"] = copy.deepcopy(config[f"{split}_evaluator"].tasks[task])
            if library == "mmseg":
                # Its preprocessor wants images of one size.
                loader.batch_size = 1
            pipeline = loader.dataset.get("pipeline") or []
            if library == "mmdet" and not any("Resize" in step.type for step in pipeline):
                # Its heads want to know the scale of an image, which resizing tells.
                pipeline.insert(-1, ConfigDict(type="Resize", scale_factor=1.0, keep_ratio=True))
    if config.get("optim_wrapper"):
        new["optim_wrapper"] = _optim_wrapper(config.optim_wrapper)
    by_epoch = str((config.get("train_cfg") or {}).get("type")) != "IterBasedTrainLoop"
    new.update({key: copy.deepcopy(config[key]) for key in keys if key in config})
    new["default_hooks"] = dict(
        timer=dict(type="IterTimerHook"),
        logger=dict(type="LoggerHook", interval=50),
        param_scheduler=dict(type="ParamSchedulerHook"),
        checkpoint=dict(type="CheckpointHook", by_epoch=by_epoch, interval=1 if by_epoch else 1000, max_keep_ckpts=2),
        sampler_seed=dict(type="DistSamplerSeedHook"),
    )
    new["visualizer"] = dict(type=_VISUALIZERS[library], vis_backends=[dict(type="LocalVisBackend")])
    return new


def _optim_wrapper(given: Mapping[str, Any]) -> dict[str, Any]:
    """Without what only a mix of sources has."""
    keys = ("optimizer", "paramwise_cfg", "clip_grad")
    return dict(type="OptimWrapper", **{key: copy.deepcopy(given[key]) for key in keys if key in given})
