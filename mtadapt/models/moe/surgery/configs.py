"""What surgery changes in the config of a run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config, ConfigDict

from mtadapt.datasets.transforms.formatting import DEFAULT_KINDS
from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.surgery.layers import ExpertLayer

#: MMEngine puts the folder of the config file in its place when the file is read, so a written folder can be moved.
CONFIG_FOLDER = "{{ fileDirname }}"

#: What a runner reads; the other names of a config file are helpers of its own.
_SPLITS = ("train", "val", "test")
_KEYS = (
    "default_scope",
    "custom_imports",
    "model",
    *(f"{split}_{part}" for split in _SPLITS for part in ("dataloader", "cfg", "evaluator")),
    *("optim_wrapper", "param_scheduler", "auto_scale_lr", "strategy", "runner_type", "compile"),
    *("default_hooks", "custom_hooks", "env_cfg", "visualizer", "log_processor", "log_level", "randomness"),
)


class Incoming(NamedTuple):
    """A task of another config.

    Attributes:
        config: the other config, with the task's head, sources and metric.
        task: its name there.
        name: its name in the model that gets it.
    """

    config: Config
    task: str
    name: str

    @property
    def head(self) -> ConfigDict:
        """The stock model of the task."""
        return copy.deepcopy(self.config.model.tasks[self.task])

    @property
    def loss_weight(self) -> float | None:
        """The factor of its losses, where the other config has one."""
        return (self.config.model.get("loss_weights") or {}).get(self.task)


def runner_config(config: Config) -> Config:
    """A copy with what a runner reads, which starts from the weights beside it and trains into a folder there."""
    new = Config({key: copy.deepcopy(config[key]) for key in _KEYS if key in config})
    new.load_from, new.resume = f"{CONFIG_FOLDER}/model.pth", False
    new.work_dir = f"{CONFIG_FOLDER}/training"
    # The weights come from load_from, also where the backbone began with others.
    new.model.backbone.pop("init_cfg", None)
    return new


def check_task(config: Config, task: str, setting: str = "--task") -> None:
    """Refuse a task that a config does not have.

    Raises:
        MTAdaptError: naming the tasks that it has.
    """
    tasks = config.model.get("tasks") or {}
    if task not in tasks:
        raise MTAdaptError(f"{setting} {task}: no task of {config.filename or 'the config'}; it has {', '.join(tasks)}")


def routers_of(config: Config, task: str) -> list[str]:
    """Routers that a task uses."""
    route = (config.model.get("routing") or {}).get(task, task)
    return [route] if isinstance(route, str) else list(route)


def only_router(config: Config, task: str) -> str:
    """The router that another task's begins with.

    Raises:
        MTAdaptError: for an unknown task, or one that mixes several routers.
    """
    check_task(config, task, "--start-from")
    routers = routers_of(config, task)
    if len(routers) > 1:
        raise MTAdaptError(
            f"--start-from {task}: the task mixes the routers of {', '.join(routers)} (model.routing), and one has to "
            f"begin; give it one, e.g. --cfg-options model.routing.{task}={routers[0]}"
        )
    return routers[0]


def check_prompts(config: Config, tasks: Sequence[str]) -> None:
    """Refuse to drop tasks whose prompts the adapter has.

    Raises:
        MTAdaptError: naming these tasks.
    """
    prompts = (config.model.get("adapter") or {}).get("prompts") or {}
    dropped = sorted(set(prompts) - set(tasks))
    if dropped:
        raise MTAdaptError(
            f"model.adapter has prompts of {', '.join(dropped)}, to which the features of all tasks attend; keep these "
            "tasks, or train a model without the adapter"
        )


def set_experts(config: Config, layers: Sequence[ExpertLayer], routers: Mapping[str, int]) -> None:
    """Write the banks of all layers and the routers into a config.

    Args:
        config: is changed.
        layers: in the order of the network.
        routers: router to the number of banks that it sees.
    """
    backbone = config.model.backbone
    for setting in {layer.setting for layer in layers}:
        banks = [layer.experts.banks for layer in layers if layer.setting == setting]
        backbone[setting].num_experts = [[*sizes] if len(sizes) > 1 else sizes[0] for sizes in banks]
    backbone.tasks = [*routers]
    most = len(layers[0].experts.banks)
    backbone.pop("task_banks", None)
    if any(seen < most for seen in routers.values()):
        backbone.task_banks = {router: seen for router, seen in routers.items() if seen < most}


def drop_training(config: Config) -> None:
    """Leave out of a config what only a training reads."""
    for key in ("train_dataloader", "train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr"):
        config.pop(key, None)


def labels(loader: Mapping[str, Any] | None, tasks: Sequence[str]) -> bool:
    """Whether the data of a loader is labelled for one of the tasks."""
    if not loader:
        return False
    dataset = loader["dataset"]
    sources = dataset["sources"].values() if _is_mix(dataset) else [dataset]
    return any(task in tasks for source in sources for task in source.get("tasks") or ())


def keep_tasks(config: Config, tasks: Sequence[str], splits: Sequence[str] = _SPLITS) -> None:
    """Leave the data and the metrics of some tasks in a config.

    Args:
        config: is changed.
        tasks: names.
        splits: of ``train``, ``val`` and ``test``.

    Raises:
        MTAdaptError: when a split has no data of the tasks, or data whose tasks cannot be told.
    """
    for split in splits:
        loader, evaluator = config.get(f"{split}_dataloader"), config.get(f"{split}_evaluator")
        if loader:
            _keep_data(loader, tasks, f"{split}_dataloader")
        for metric in multi_task_metrics(evaluator):
            metric.tasks = {name: each for name, each in metric.tasks.items() if name in tasks}
    checkpoint = (config.get("default_hooks") or {}).get("checkpoint") or {}
    best = checkpoint.get("save_best")
    if isinstance(best, str) and "/" in best and best.partition("/")[0] not in tasks:
        for key in ("save_best", "rule"):
            checkpoint.pop(key, None)


def _keep_data(loader: ConfigDict, tasks: Sequence[str], setting: str) -> None:
    dataset = loader.dataset
    if not _is_mix(dataset):
        dataset.tasks = [task for task in _own_tasks(dataset, setting) if task in tasks]
        return
    kept = {name: source for name, source in dataset.sources.items() if any(task in tasks for task in source.tasks)}
    if not kept:
        raise MTAdaptError(
            f"{setting}: no source labels {', '.join(tasks)}; take the data from another config (--from)"
        )
    for source in kept.values():
        own = source.tasks
        source.tasks = (
            {task: own[task] for task in own if task in tasks}
            if isinstance(own, Mapping)
            else [task for task in own if task in tasks]
        )
        if source.dataset.get("tasks"):
            source.dataset.tasks = [task for task in source.dataset.tasks if task in tasks]
    dataset.sources = kept
    sampler = loader.get("batch_sampler") or {}
    for key in ("batch_size", "weights", "accumulate"):
        if isinstance(sampler.get(key), Mapping):
            sampler[key] = {name: value for name, value in sampler[key].items() if name in kept}


def rename_task(config: Config, old: str, new: str) -> None:
    """Give the only task of the data and the metrics of a config another name.

    Raises:
        MTAdaptError: for data of several tasks, whose dataset names them itself.
    """
    if old == new:
        return
    for split in _SPLITS:
        loader = config.get(f"{split}_dataloader")
        for source in loader.dataset.get("sources", {}).values() if loader else ():
            kind = source.tasks[old] if isinstance(source.tasks, Mapping) else DEFAULT_KINDS.get(old)
            source.tasks = {new: kind} if kind else [new]
        if loader and (not _is_mix(loader.dataset) or _named_inside(loader.dataset)):
            raise MTAdaptError(f"--as {new}: the dataset of {split}_dataloader names its tasks itself; leave --as out")
        for metric in multi_task_metrics(config.get(f"{split}_evaluator")):
            metric.tasks = {new: metric.tasks[old]}


def add_validation(config: Config, other: Config, task: str) -> None:
    """Put the validation and test data of another config, with its metric, before those of a config with one task.

    Args:
        config: is changed; its loaders validate ``task``.
        other: its loaders and data come first, so that they are batched as before.
        task: the only task of ``config``.

    Raises:
        MTAdaptError: when one of them cannot be a source beside the other.
    """
    for split in ("val", "test"):
        setting = f"{split}_dataloader"
        own, given = config.get(setting), other.get(setting)
        if not own or not given:
            continue
        merged = copy.deepcopy(given)
        sources = {**_sources(given.dataset, "old", setting)}
        for name, source in _sources(own.dataset, "new", setting).items():
            sources[f"{name}_{task}" if name in sources else name] = source
        merged.dataset = dict(type="mtadapt.HeterogeneousDataset", sources=sources)
        config[setting] = merged
        mine, old = (multi_task_metrics(each.get(f"{split}_evaluator")) for each in (config, other))
        if len(mine) != 1 or len(old) != 1:
            raise MTAdaptError(f"{split}_evaluator: both configs need one MultiTaskMetric; write it so")
        metric = copy.deepcopy(old[0])
        metric.tasks = {**metric.tasks, **mine[0].tasks}
        config[f"{split}_evaluator"] = metric


def check_neck(config: Config, incoming: Incoming) -> None:
    """Refuse a head that reads the shared neck, when its own config has another one.

    Raises:
        MTAdaptError: saying how a task brings its own neck.
    """
    if incoming.head.backbone.get("source", "neck") == "backbone":
        return
    necks = [copy.deepcopy(each.model.get("neck")) for each in (config, incoming.config)]
    for neck in necks:
        for part in neck if isinstance(neck, list) else [neck]:
            # Of the backbone, which is another one.
            (part or {}).pop("in_channels", None)
    if necks[0] != necks[1]:
        raise MTAdaptError(
            f"task {incoming.task!r} of {incoming.config.filename} reads a shared neck that is not the model's; give "
            "the task its own: neck=..., backbone=dict(type='mtadapt.SharedFeatures', source='backbone')"
        )


def stage(config: Config, name: str, freeze: Sequence[str], router: str, bank: int | None) -> None:
    """Make a config train one task's routers, a bank of experts and what else is not frozen.

    Args:
        config: is changed.
        name: of the stage.
        freeze: modules besides the backbone, the shared neck and the adapter.
        router: the one that trains.
        bank: the bank that trains; None for no expert.
    """
    # With everything in them by name, because adapters in a frozen module stay trainable otherwise.
    shared = [f"{part}*" for part in ("backbone", "neck", "adapter") if config.model.get(part)]
    freeze = [name for module in freeze for name in (module, f"{module}.*")]
    trained = [f"backbone.*.routers.{router}", "backbone.*.usage"]
    trained += [] if bank is None else [f"backbone.*.banks.{bank}"]
    # A stage has a schedule of its own.
    schedule = config.pop("param_scheduler", None) or []
    config.stages = [
        dict(name=name, freeze=[*shared, *freeze], freeze_except=trained, param_scheduler=copy.deepcopy(schedule))
    ]


def _is_mix(dataset: Mapping[str, Any]) -> bool:
    return str(dataset.get("type")).endswith("HeterogeneousDataset")


def _named_inside(dataset: Mapping[str, Any]) -> bool:
    return any(source.dataset.get("tasks") for source in dataset["sources"].values())


def _own_tasks(dataset: Mapping[str, Any], setting: str) -> Sequence[str]:
    if not dataset.get("tasks"):
        raise MTAdaptError(
            f"{setting}.dataset={dataset.get('type')!r} does not say its tasks; write tasks=[...], or a "
            "HeterogeneousDataset"
        )
    return dataset["tasks"]


def _sources(dataset: ConfigDict, name: str, setting: str) -> dict[str, Any]:
    """The sources of a dataset; one that is no mix is a source by itself."""
    if _is_mix(dataset):
        return copy.deepcopy(dict(dataset.sources))
    return {name: dict(tasks=[*_own_tasks(dataset, setting)], dataset=copy.deepcopy(dataset))}


def multi_task_metrics(evaluator: Any) -> list[ConfigDict]:
    """Those of an evaluator, which may be a list."""
    evaluators = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator] if evaluator else []
    return [each for each in evaluators if str(each.get("type")).endswith("MultiTaskMetric")]
