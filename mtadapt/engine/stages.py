"""Training in stages: pretrain-adapt-finetune as a list in the config, each stage an ordinary run."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from mtadapt.engine.checkpoints import newest_whole_checkpoint
from mtadapt.engine.config import build_runner
from mtadapt.engine.stage_runner import StageRunner
from mtadapt.errors import MTAdaptError

#: What a stage can say. Its optimizer is merged into the config's ``optim_wrapper``; its schedule stands alone.
KEYS = ("name", "freeze", "freeze_except", "length", "optim_wrapper", "param_scheduler")
#: Empty file in the folder of a stage that has run to its end.
FINISHED = "finished"


def train_in_stages(config: Config, start_from: str | None = None) -> None:
    """Run the stages of a config in their order, each with :class:`StageRunner`.

    ``stages`` is a list of dictionaries:

    - ``name``: its folder below the work directory.
    - ``freeze``: names of modules, see :func:`mtadapt.engine.freezing.modules_to_freeze`.
    - ``freeze_except``: names of modules inside them that train all the same.
    - ``length``: epochs, or iterations with ``IterBasedTrainLoop``. One stage may leave it out: it gets the rest of the
      total budget, which is ``train_cfg.max_epochs`` or ``max_iters``. The lengths add up to that.
    - ``optim_wrapper``: what differs from the config's.
    - ``param_scheduler``: the stage's own schedule; ``[]`` is a constant rate.

    All that counts epochs or iterations (schedules, ``val_begin``, hooks) counts from the beginning of the stage. A
    stage starts from the last checkpoint of the one before. With ``resume`` the run goes on in the first stage that is
    not finished, and with ``load_from`` as well in the stage whose folder holds that checkpoint. Ours: the seed of a
    stage is the config's plus the length of the stages before, so that epochs shuffle as those of one long run.

    Args:
        config: of the run.
        start_from: checkpoint whose weights the first stage begins with when ``resume`` finds nothing to go on with.

    Raises:
        MTAdaptError: for a mistake in ``stages``, before anything is trained.
    """
    stages = parse_stages(config)
    folders = [Path(config.work_dir, stage["name"]) for stage in stages]
    resume = bool(config.get("resume"))
    start = _stage_to_resume(config, folders) if resume else 0
    if start == len(stages):
        print_log(f"{config.work_dir}: all stages are finished", logger="current")
        return
    _dump(config)
    configs = [stage_config(config, stages, number) for number in range(len(stages))]
    for number in range(start, len(stages)):
        current = configs[number]
        first = number == start
        if first and config.get("load_from"):
            current.load_from, current.resume = config.load_from, resume
        elif first and resume and (newest := newest_whole_checkpoint(folders[number])):
            current.load_from, current.resume = newest, True
        elif number:
            current.load_from = _last_checkpoint(folders[number - 1])
        else:
            current.load_from = start_from
        runner = build_runner(current, StageRunner)
        if first:
            runner.check_stages(configs[number:])
        _mark_unfinished(folders[number:])
        runner.train()
        if is_main_process():
            (folders[number] / FINISHED).touch()
        # The main process has written the checkpoint that all of them read next.
        barrier()
        # Two models, optimizers and sets of workers at a time would be one too many.
        del runner
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def parse_stages(config: Config) -> list[dict]:
    """Check ``stages`` and give every stage its length.

    Raises:
        MTAdaptError: for an unknown or missing key, equal names, lengths that are not the total, or when a stage would
            leave no checkpoint for the next.
    """
    if not isinstance(config.stages, (list, tuple)) or not config.stages:
        raise MTAdaptError(f"stages={config.stages!r}; write a list of dictionaries, or leave it out")
    stages = [_parse_stage(number, stage) for number, stage in enumerate(config.stages)]
    names = [stage["name"] for stage in stages]
    if len(set(names)) < len(names):
        raise MTAdaptError(f"stages: names {names}; give each stage its own")
    _set_lengths(stages, *_budget(config))
    hooks = config.get("default_hooks") or {}
    checkpoint = hooks.get("checkpoint", {})
    if len(stages) > 1 and (checkpoint is None or not checkpoint.get("save_last", True)):
        raise MTAdaptError(
            "default_hooks.checkpoint: a stage starts from the last checkpoint of the one before; set save_last=True"
        )
    return stages


def _parse_stage(number: int, given: dict) -> dict:
    if not isinstance(given, Mapping):
        raise MTAdaptError(f"stages[{number}]={given!r}; write a dictionary with a name")
    stage = copy.deepcopy(dict(given))
    name = stage.get("name")
    if not isinstance(name, str) or not name.isidentifier():
        raise MTAdaptError(f"stages[{number}]: name={name!r}; use letters, digits and underscores")
    unknown = set(stage) - set(KEYS)
    if unknown:
        raise MTAdaptError(f"stage {name!r}: unknown {sorted(unknown)}; known: {', '.join(KEYS)}")
    if "param_scheduler" not in stage:
        raise MTAdaptError(f"stage {name!r} has no param_scheduler; write [] for a constant learning rate")
    for key in ("freeze", "freeze_except"):
        names = stage.setdefault(key, [])
        if not isinstance(names, (list, tuple)) or not all(isinstance(module, str) for module in names):
            raise MTAdaptError(f"stage {name!r}: {key}={names!r}; write a list of module names")
    return stage


def stage_config(config: Config, stages: Sequence[dict], number: int) -> Config:
    """The config of one stage, as an ordinary run has it; :class:`StageRunner` reads its ``stage``."""
    config = copy.deepcopy(config)
    stage = stages[number]
    unit, _ = _budget(config)
    config.pop("stages")
    config.stage = dict(name=stage["name"], freeze=list(stage["freeze"]), freeze_except=list(stage["freeze_except"]))
    config.train_cfg[unit] = stage["length"]
    if stage.get("optim_wrapper"):
        config.merge_from_dict(dict(optim_wrapper=stage["optim_wrapper"]))
    config.param_scheduler = stage["param_scheduler"]
    config.work_dir = str(Path(config.work_dir, stage["name"]))
    config.experiment_name = f"{config.get('experiment_name') or Path(config.filename or 'run').stem}_{stage['name']}"
    randomness = config.get("randomness") or {}
    if randomness.get("seed") is not None:
        before = sum(other["length"] for other in stages[:number])
        config.randomness = {**randomness, "seed": randomness["seed"] + before}
    config.load_from, config.resume = None, False
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
        if type(length) is not int or length < 1:
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


def _stage_to_resume(config: Config, folders: Sequence[Path]) -> int:
    """Number of the stage in which training goes on; the number of stages when all are finished."""
    names = [folder.name for folder in folders]
    if config.get("load_from"):
        folder = Path(config.load_from).resolve().parent.name
        if folder not in names:
            raise MTAdaptError(
                f"--resume {config.load_from}: its folder {folder!r} is no stage of the config ({', '.join(names)})"
            )
        return names.index(folder)
    unfinished = (number for number, folder in enumerate(folders) if not (folder / FINISHED).is_file())
    return next(unfinished, len(folders))


def _mark_unfinished(folders: Sequence[Path]) -> None:
    if is_main_process():
        for folder in folders:
            (folder / FINISHED).unlink(missing_ok=True)


def _dump(config: Config) -> None:
    """Write the whole config into the work directory; the folders of the stages hold those of the stages."""
    if is_main_process():
        Path(config.work_dir).mkdir(parents=True, exist_ok=True)
        config.dump(str(Path(config.work_dir, Path(config.filename or "config.py").name)))


def _last_checkpoint(folder: Path) -> str:
    path = newest_whole_checkpoint(folder)
    if path is None:
        raise MTAdaptError(f"{folder}: the stage left no checkpoint; resume it, or start anew without --resume")
    return path
