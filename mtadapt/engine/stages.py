"""Training in stages: pretrain-adapt-finetune as a list in the config, each stage an ordinary run."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.runner import find_latest_checkpoint

from mtadapt.engine.config import build_runner
from mtadapt.engine.stage_runner import StageRunner
from mtadapt.errors import MTAdaptError

#: What a stage can say. Its optimizer is merged into the config's ``optim_wrapper``; its schedule stands alone.
KEYS = ("name", "freeze", "length", "optim_wrapper", "param_scheduler")


def train_in_stages(config: Config) -> None:
    """Run the stages of a config in their order, each with :class:`StageRunner`.

    ``stages`` is a list of dictionaries:

    - ``name``: its folder below the work directory.
    - ``freeze``: names of modules, see :func:`mtadapt.engine.freezing.modules_to_freeze`.
    - ``length``: epochs, or iterations with ``IterBasedTrainLoop``. One stage may leave it out: it gets the rest of the
      total budget, which is ``train_cfg.max_epochs`` or ``max_iters``. The lengths add up to that.
    - ``optim_wrapper``: what differs from the config's.
    - ``param_scheduler``: the stage's own schedule, whose steps count from its beginning; ``[]`` is a constant rate.

    A stage starts from the last checkpoint of the one before. With ``resume`` the run goes on in the last stage that
    has a checkpoint, and with ``load_from`` in the stage whose folder holds that checkpoint. Ours: each stage adds
    its number to the seed, so that no stage repeats the order of images of another.

    Raises:
        MTAdaptError: for a mistake in ``stages``, before anything is trained.
    """
    stages = parse_stages(config)
    start = _stage_to_resume(config, [stage["name"] for stage in stages]) if config.get("resume") else 0
    config.stages = stages
    for number in range(start, len(stages)):
        stage = stage_config(config, number)
        stage.resume = bool(config.get("resume")) and number == start
        if number > start:
            stage.load_from = _last_checkpoint(stage_config(config, number - 1).work_dir)
        elif config.get("load_from"):
            stage.load_from = config.load_from
        build_runner(stage, StageRunner).train()
        # The main process has written the checkpoint that all of them read next.
        barrier()


def parse_stages(config: Config) -> list[dict]:
    """Check ``stages`` and give every stage its length.

    Raises:
        MTAdaptError: for an unknown or missing key, equal names, or lengths that are not the total.
    """
    stages = [copy.deepcopy(stage) for stage in config.stages]
    if not stages:
        raise MTAdaptError("stages is empty; leave it out for a run without stages")
    for number, stage in enumerate(stages):
        name = stage.get("name")
        if not isinstance(name, str) or not name.isidentifier():
            raise MTAdaptError(f"stages[{number}]: name={name!r}; use letters, digits and underscores")
        unknown = set(stage) - set(KEYS)
        if unknown:
            raise MTAdaptError(f"stage {name!r}: unknown {sorted(unknown)}; known: {', '.join(KEYS)}")
        if "param_scheduler" not in stage:
            raise MTAdaptError(f"stage {name!r} has no param_scheduler; write [] for a constant learning rate")
        freeze = stage.setdefault("freeze", [])
        if isinstance(freeze, str) or not isinstance(freeze, Sequence):
            raise MTAdaptError(f"stage {name!r}: freeze={freeze!r}; write a list of module names")
    names = [stage["name"] for stage in stages]
    if len(set(names)) < len(names):
        raise MTAdaptError(f"stages: names {names}; give each stage its own")
    _set_lengths(stages, *_budget(config))
    return stages


def stage_config(config: Config, number: int) -> Config:
    """The config of one stage, as an ordinary run has it."""
    config = copy.deepcopy(config)
    stage = config.stages[number]
    unit, _ = _budget(config)
    config.stage = dict(name=stage["name"], freeze=list(stage["freeze"]))
    config.train_cfg[unit] = stage["length"]
    if stage.get("optim_wrapper"):
        config.merge_from_dict(dict(optim_wrapper=stage["optim_wrapper"]))
    config.param_scheduler = stage["param_scheduler"]
    config.work_dir = str(Path(config.work_dir, stage["name"]))
    config.experiment_name = f"{Path(config.filename or 'run').stem}_{stage['name']}"
    randomness = config.get("randomness") or {}
    if randomness.get("seed") is not None:
        config.randomness = {**randomness, "seed": randomness["seed"] + number}
    config.load_from = None
    return config


def _budget(config: Config) -> tuple[str, int]:
    """Name and value of the total length."""
    train_cfg: Mapping = config.get("train_cfg") or {}
    for unit in ("max_epochs", "max_iters"):
        if train_cfg.get(unit):
            return unit, train_cfg[unit]
    raise MTAdaptError("stages need a total budget: train_cfg.max_epochs or train_cfg.max_iters")


def _set_lengths(stages: Sequence[dict], unit: str, total: int) -> None:
    for stage in stages:
        length = stage.get("length", 1)
        if not isinstance(length, int) or length < 1:
            raise MTAdaptError(f"stage {stage['name']!r}: length={length!r}; write a whole number of {unit[4:]}")
    open_ended = [stage for stage in stages if "length" not in stage]
    used = sum(stage.get("length", 0) for stage in stages)
    if len(open_ended) > 1 or used + len(open_ended) > total or (not open_ended and used != total):
        given = ", ".join(f"{stage['name']} {stage.get('length', 'the rest')}" for stage in stages)
        raise MTAdaptError(
            f"stages: {given}; the lengths must add up to train_cfg.{unit}={total}, and one may be left out"
        )
    for stage in open_ended:
        stage["length"] = total - used


def _stage_to_resume(config: Config, names: Sequence[str]) -> int:
    """Number of the stage in which training goes on."""
    if config.get("load_from"):
        folder = Path(config.load_from).resolve().parent.name
        if folder not in names:
            raise MTAdaptError(
                f"--resume {config.load_from}: its folder {folder!r} is no stage of the config ({', '.join(names)})"
            )
        return names.index(folder)
    return next((number for number in _backwards(names) if _found(config, names[number])), 0)


def _backwards(names: Sequence[str]) -> Iterator[int]:
    return reversed(range(len(names)))


def _found(config: Config, name: str) -> str | None:
    folder = Path(config.work_dir, name)
    return find_latest_checkpoint(str(folder)) if folder.is_dir() else None


def _last_checkpoint(folder: str) -> str:
    path = find_latest_checkpoint(folder)
    if path is None:
        raise MTAdaptError(
            f"{folder}: the stage left no checkpoint; give default_hooks a CheckpointHook with save_last"
        )
    return path
