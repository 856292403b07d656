"""The runs of a benchmark, their folders and their configs."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from mtadapt.engine.config import load_config
from mtadapt.engine.stock_model import untrained
from mtadapt.errors import MTAdaptError, first_line
from mtadapt.registry import MODELS
from mtadapt.zoo.benchmark.zoo_file import Checkpoint, Training, Zoo

_HOOK = "BackboneWeightsHook"
_TOP_LEVEL = {*inspect.signature(Runner).parameters, "stages"}


@dataclass(frozen=True)
class Cell:
    """One run of the benchmark.

    Args:
        kind: ``pretrain``, ``multi_task`` or ``single_task``.
        training: the config that it trains.
        checkpoint: that it starts from; for ``pretrain`` the one that it makes.
        seed: of the run.
        label_setting: empty for ``pretrain``.
    """

    kind: str
    training: Training
    checkpoint: Checkpoint
    seed: int
    label_setting: str = ""

    @property
    def name(self) -> str:
        """The folder, relative to that of the benchmark."""
        middle = [self.label_setting, self.training.name] if self.kind != "pretrain" else []
        return "/".join([self.kind, *middle, self.checkpoint.name, f"seed{self.seed}"])

    @property
    def needs(self) -> Cell | None:
        """The pre-training that has to be finished before."""
        pretrain = self.checkpoint.pretrain
        if self.kind == "pretrain" or pretrain is None:
            return None
        return Cell("pretrain", pretrain, self.checkpoint, self.seed)


class Grid:
    """All runs of a zoo file.

    Args:
        zoo: the file.
        work_dir: folder of the runs; by default that of the file.
        trust_checkpoint: let checkpoints run the code that they hold.
    """

    def __init__(self, zoo: Zoo, work_dir: Path | None = None, trust_checkpoint: bool = False) -> None:
        self.zoo = zoo
        self.root = work_dir or zoo.work_dir
        self.trust_checkpoint = trust_checkpoint
        self._loaded: dict[Path, Config] = {}

    def cells(self) -> list[Cell]:
        """Every run: pre-trainings first, then seed by seed, those that wait for no pre-training before the others."""
        zoo = self.zoo
        made = [
            Cell("pretrain", each.pretrain, each, seed)
            for seed in zoo.seeds
            for each in zoo.checkpoints
            if each.pretrain is not None
        ]
        ready_first = sorted(zoo.checkpoints, key=lambda each: each.pretrain is not None)
        trainings = [("multi_task", each) for each in zoo.paradigms] + [
            ("single_task", each) for each in zoo.single_task
        ]
        made += [
            Cell(kind, training, checkpoint, seed, setting)
            for seed in zoo.seeds
            for checkpoint in ready_first
            for setting in zoo.label_settings
            for kind, training in trainings
        ]
        return made

    def folder(self, cell: Cell) -> Path:
        """Folder of a run."""
        return self.root / cell.name

    def config(self, cell: Cell) -> Config:
        """The complete config of a run.

        The config of the paradigm with the options of the zoo file, with the seed, the label setting, the backbone of
        the checkpoint and without what would load other weights into it; :class:`mtadapt.zoo.BackboneWeightsHook`
        loads it, and :class:`mtadapt.engine.CostHook` writes what the run costs.

        Raises:
            MTAdaptError: when the config cannot be read or an option cannot be set.
        """
        config = self._own_settings(cell)
        hooks = config.setdefault("default_hooks", ConfigDict())
        hooks["cost"] = dict(type="mtadapt.CostHook")
        if cell.kind != "pretrain":
            self._start_from(config, cell)
        config.work_dir = str(self.folder(cell))
        return config

    def recipe(self, cell: Cell) -> str:
        """SHA-256 of all that makes a run what it is, whatever folder it is in."""
        content: dict[str, Any] = dict(config=self._own_settings(cell).to_dict())
        needs = cell.needs
        if needs is not None:
            content["pretrain"] = self.recipe(needs)
        if cell.kind != "pretrain":
            content["weights"] = [
                cell.checkpoint.source,
                cell.checkpoint.sha256,
                *_how_to_load(cell.checkpoint).items(),
            ]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()

    def source(self, cell: Cell) -> str | None:
        """The checkpoint that a run starts from: as the zoo file names it, or the folder of the pre-training."""
        needs = cell.needs
        if needs is None:
            return cell.checkpoint.source
        stages = self._own_settings(needs).get("stages")
        return str(self.folder(needs) / stages[-1]["name"] if stages else self.folder(needs))

    def _start_from(self, config: Config, cell: Cell) -> None:
        source = self.source(cell)
        hooks: dict = config.default_hooks
        for key in [key for key, hook in hooks.items() if _is_weights_hook(hook)]:
            hooks.pop(key)
        if config.get("custom_hooks"):
            config.custom_hooks = [hook for hook in config.custom_hooks if not _is_weights_hook(hook)]
        if "checkpoint" in config:
            config.checkpoint = source
        if source is None:
            return
        hook = dict(type=f"mtadapt.{_HOOK}", checkpoint=source, **_how_to_load(cell.checkpoint))
        if cell.checkpoint.sha256:
            hook["sha256"] = cell.checkpoint.sha256
        if self.trust_checkpoint:
            hook["trust_checkpoint"] = True
        hooks["backbone_weights"] = hook

    def _own_settings(self, cell: Cell) -> Config:
        """The config before the hooks of the benchmark are in it."""
        config = copy.deepcopy(self._load(cell.training))
        for where, options in self._options(cell):
            _merge(config, options, where)
        config.merge_from_dict({"randomness.seed": cell.seed})
        if cell.kind == "pretrain":
            return config
        if config.get("load_from"):
            raise MTAdaptError(
                f"{cell.training.where}: {cell.training.config} has load_from={config.load_from!r}, which would take "
                "the place of the checkpoints; set options: {load_from: null}"
            )
        model = config.get("model") or {}
        if not isinstance(model.get("backbone"), Mapping):
            raise MTAdaptError(
                f"{cell.training.where}: {cell.training.config} has no model.backbone, into which a checkpoint goes"
            )
        if cell.checkpoint.backbone is not None:
            model.pop("backbone")
            model["backbone"] = copy.deepcopy(dict(cell.checkpoint.backbone))
        _start_random(config, cell)
        self._set_labels(config, cell)
        return config

    def _options(self, cell: Cell) -> list[tuple[str, Mapping[str, Any]]]:
        own = (cell.training.where, cell.training.options)
        if cell.kind == "pretrain":
            return [own]
        return [(str(self.zoo.path), self.zoo.options), own, (cell.checkpoint.where, cell.checkpoint.options)]

    def _load(self, training: Training) -> Config:
        if training.config not in self._loaded:
            try:
                self._loaded[training.config] = load_config(str(training.config))
            except MTAdaptError as error:
                raise MTAdaptError(f"{training.where}: {error}") from error
        return self._loaded[training.config]

    def _set_labels(self, config: Config, cell: Cell) -> None:
        dataset = (config.get("train_dataloader") or {}).get("dataset") or {}
        if str(dataset.get("type")).split(".")[-1] == "BDD100KDataset":
            dataset["label_setting"] = cell.label_setting
        elif cell.label_setting != "full":
            raise MTAdaptError(
                f"{cell.training.where}: {cell.training.config} trains on {dataset.get('type')}, which has no label "
                f"setting {cell.label_setting!r}; only BDD100KDataset has"
            )


def _merge(config: Config, options: Mapping[str, Any], where: str) -> None:
    # MMEngine takes any new key, and nothing would read a misspelt one. Those further down end the run or its check.
    for key in options:
        if key.split(".")[0] not in {*config.keys(), *_TOP_LEVEL}:
            raise MTAdaptError(f"{where}: options: {config.filename} has no {key.split('.')[0]!r} for {key!r}")
    try:
        config.merge_from_dict(copy.deepcopy(dict(options)))
    except (KeyError, TypeError, IndexError, AssertionError, AttributeError) as error:
        message = f"options {dict(options)} do not fit {config.filename}: {first_line(error)}"
        raise MTAdaptError(f"{where}: {message}") from error


def _how_to_load(checkpoint: Checkpoint) -> dict[str, Any]:
    given = dict(prefix=checkpoint.prefix, min_match=checkpoint.min_match)
    return {key: value for key, value in given.items() if value is not None}


def _is_weights_hook(hook: Any) -> bool:
    return isinstance(hook, Mapping) and str(hook.get("type")).split(".")[-1] == _HOOK


def _start_random(config: Config, cell: Cell) -> None:
    """Remove what loads weights when the model is built or initialised; a default of a class may load some too."""
    model = config.model
    if "Pretrained" in str(model.get("init_cfg")):
        model.pop("init_cfg")
    if "pretrained" in model:
        model["pretrained"] = None
    kind = model["backbone"]["type"]
    try:
        with DefaultScope.overwrite_default_scope(config.get("default_scope", "mtadapt")):
            found = MODELS.get(kind) if isinstance(kind, str) else kind
            model["backbone"] = untrained(model["backbone"])
    except KeyError:
        found = None
    if found is None:
        where = cell.training.where if cell.checkpoint.backbone is None else cell.checkpoint.where
        raise MTAdaptError(f"{where}: model.backbone has the unknown type {kind!r}; correct the name")
