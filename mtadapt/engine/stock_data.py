"""The data, metrics and schedule of one task, as the tools of mmdet, mmseg or mmpretrain run them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from mtadapt.datasets.bdd100k import IMAGE_SETS, BDD100KDataset
from mtadapt.engine.stages import parse_stages, stage_config
from mtadapt.models.moe.surgery.configs import multi_task_metrics
from mtadapt.registry import DATASETS, TRANSFORMS

_VISUALIZERS = dict(mmdet="DetLocalVisualizer", mmseg="SegLocalVisualizer", mmpretrain="UniversalVisualizer")
_PACKING = dict(
    mmdet=dict(
        type="PackDetInputs",
        meta_keys=(
            *("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction"),
            # The ground truth that CocoMetric takes where it has no file of annotations.
            "instances",
        ),
    ),
    mmseg=dict(type="PackSegInputs"),
)


def stock_data(config: Config, task: str, library: str) -> dict[str, Any]:
    """Loaders, metrics and schedule of a task.

    A split has them where its data is one source of the library, alone or in a
    :class:`~mtadapt.datasets.HeterogeneousDataset`, or a :class:`~mtadapt.datasets.BDD100KDataset`, whose samples are
    then packed as the library's own. The metrics have the task's name as their prefix, so the numbers are called as
    those of the multi-task model. Of a training in stages, the schedule is the last one's.

    Args:
        config: of the multi-task run.
        task: its name there.
        library: ``mmdet``, ``mmseg`` or ``mmpretrain``.

    Returns:
        Entries of a config; none where no split can be told.
    """
    if config.get("stages"):
        stages = parse_stages(config)
        config = stage_config(config, stages, len(stages) - 1)
    scope = config.get("default_scope") or "mtadapt"
    new: dict[str, Any] = {}
    for split in ("train", "val", "test"):
        loader = _loader(config.get(f"{split}_dataloader"), task, library, scope, split != "train")
        loop = config.get(f"{split}_cfg")
        if loader is None or not loop:
            continue
        if split == "train":
            if not config.get("optim_wrapper"):
                continue
            new["optim_wrapper"] = _optim_wrapper(config.optim_wrapper)
            if config.get("param_scheduler"):
                new["param_scheduler"] = copy.deepcopy(config.param_scheduler)
        elif metrics := _metrics(config.get(f"{split}_evaluator"), task, scope):
            new[f"{split}_evaluator"] = metrics[0] if len(metrics) == 1 else metrics
        else:
            continue
        new.update({f"{split}_dataloader": loader, f"{split}_cfg": copy.deepcopy(loop)})
    if not new:
        return {}
    by_epoch = str((config.get("train_cfg") or {}).get("type")) != "IterBasedTrainLoop"
    new.update({key: copy.deepcopy(config[key]) for key in ("env_cfg", "log_processor", "randomness") if key in config})
    new["default_hooks"] = dict(
        timer=dict(type="IterTimerHook"),
        logger=dict(type="LoggerHook", interval=50),
        param_scheduler=dict(type="ParamSchedulerHook"),
        checkpoint=dict(type="CheckpointHook", by_epoch=by_epoch, interval=1 if by_epoch else 1000, max_keep_ckpts=2),
        sampler_seed=dict(type="DistSamplerSeedHook"),
    )
    new["visualizer"] = dict(type=_VISUALIZERS[library], vis_backends=[dict(type="LocalVisBackend")])
    return new


def _loader(given: ConfigDict | None, task: str, library: str, scope: str, evaluated: bool) -> ConfigDict | None:
    """The loader of a split with the task's data alone, or None where it cannot be told."""
    if not given:
        return None
    loader = copy.deepcopy(given)
    name, dataset = _source(loader.dataset, task)
    if dataset is None:
        return None
    if _is_bdd100k(dataset, scope):
        dataset = _packed_by(library, dataset, task, scope, evaluated)
    elif str(dataset.get("type")).split(".")[0] != library:
        return None
    if dataset is None:
        return None
    loader.dataset = dataset
    batches = loader.pop("batch_sampler", None)
    if batches:
        size = batches.batch_size
        loader.batch_size = size[name] if isinstance(size, Mapping) else size
    if not evaluated:
        return loader
    if library == "mmseg":
        # Its preprocessor wants images of one size.
        loader.batch_size = 1
    pipeline = dataset.get("pipeline") or []
    if library == "mmdet" and not any("Resize" in step.type for step in pipeline):
        # Its heads want to know the scale of an image, which resizing tells.
        pipeline.insert(-1, ConfigDict(type="mmdet.Resize", scale_factor=1.0, keep_ratio=True))
    return loader


def _source(dataset: ConfigDict, task: str) -> tuple[str, ConfigDict | None]:
    """Name and config of the only source with labels of a task; a dataset that is no mix has no name."""
    if not str(dataset.get("type")).endswith("HeterogeneousDataset"):
        return "", dataset
    found = [(name, source.dataset) for name, source in dataset.sources.items() if task in source.tasks]
    return found[0] if len(found) == 1 else ("", None)


def _is_bdd100k(dataset: Mapping[str, Any], scope: str) -> bool:
    kind = dataset.get("type")
    built = DATASETS.get(_scoped(kind, scope)) if isinstance(kind, str) else kind
    return isinstance(built, type) and issubclass(built, BDD100KDataset)


def _packed_by(library: str, given: ConfigDict, task: str, scope: str, evaluated: bool) -> ConfigDict | None:
    """The dataset with one task, whose pipeline ends with the library's packing; None where it ends with another."""
    dataset = copy.deepcopy(given)
    steps = [*(dataset.get("pipeline") or ())]
    if library not in _PACKING or not steps or not str(steps[-1].get("type")).endswith("PackMultiTaskInputs"):
        return None
    steps = [_in_library(step, library, scope) for step in steps[:-1]] + [ConfigDict(_PACKING[library])]
    if evaluated:
        for step in steps:
            if step.type == "mtadapt.LoadImage":
                # The step that the library's inferencers look for, to put images that are given in its place.
                step.type = "LoadImageFromFile"
    # All tasks that the images are shared out among, so that a disjoint label setting gives this one the same.
    tasks = [*(dataset.get("label_tasks") or dataset.get("tasks") or IMAGE_SETS)]
    dataset.update(type=_scoped(dataset.type, scope), tasks=[task], label_tasks=tasks, pipeline=steps)
    return dataset


def _in_library(node: Any, library: str, scope: str) -> Any:
    """A step of a pipeline with names that mean in a library's scope what they mean in another."""
    if isinstance(node, (list, tuple)):
        return [_in_library(each, library, scope) for each in node]
    if not isinstance(node, dict):
        return node
    new = ConfigDict({key: _in_library(value, library, scope) for key, value in node.items()})
    kind = new.get("type")
    if isinstance(kind, str) and TRANSFORMS.get(_scoped(kind, scope)) is not TRANSFORMS.get(_scoped(kind, library)):
        new.type = _scoped(kind, scope)
    return new


def _scoped(kind: str, scope: str) -> str:
    return kind if "." in kind else f"{scope}.{kind}"


def _metrics(evaluator: Any, task: str, scope: str) -> list[ConfigDict]:
    """Those of a task in a MultiTaskMetric, which give numbers of the same names."""
    found: list[ConfigDict] = []
    for metric in multi_task_metrics(evaluator):
        given = copy.deepcopy(metric.tasks.get(task) or [])
        for own in given if isinstance(given, (list, tuple)) else [given]:
            own.type = _scoped(own.type, own.pop("_scope_", None) or scope)
            own.prefix = f"{task}/{own.prefix}" if own.get("prefix") else task
            found.append(own)
    return found


def _optim_wrapper(given: Mapping[str, Any]) -> dict[str, Any]:
    """Without what only a mix of sources has."""
    keys = ("optimizer", "constructor", "paramwise_cfg", "clip_grad")
    return dict(type="OptimWrapper", **{key: copy.deepcopy(given[key]) for key in keys if key in given})
