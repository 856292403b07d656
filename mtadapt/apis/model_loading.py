"""A trained model from its config and its checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.utils import import_modules_from_strings
from torch import nn

from mtadapt.apis.literal_config import literal_config
from mtadapt.apis.task_classes import dataset_meta
from mtadapt.engine.checkpoints import (
    load_config_text,
    load_dataset_meta,
    load_weights,
    newest_whole_checkpoint,
)
from mtadapt.engine.config import load_config
from mtadapt.engine.measure import build_model
from mtadapt.errors import MTAdaptError


class TrainedModel(NamedTuple):
    """A model that is ready to predict.

    Attributes:
        config: of its run.
        model: with its weights, in evaluation mode, on its device.
        dataset_meta: ``tasks``: task to its ``classes`` and ``palette``.
        checkpoint: the file that the weights come from.
    """

    config: Config
    model: nn.Module
    dataset_meta: dict[str, Any]
    checkpoint: Path


def open_model(
    config: str | Path | Config | Mapping[str, Any] | None,
    weights: str | Path | None,
    device: str | torch.device | None = None,
    options: Mapping[str, Any] | None = None,
) -> TrainedModel:
    """Build a model and load all of its weights; nothing that the checkpoint holds is executed.

    Args:
        config: of the run; None for the one that the checkpoint carries.
        weights: a checkpoint, or the folder of a run, whose newest whole checkpoint is taken; None for the config's
            ``load_from``.
        device: e.g. ``cpu`` or ``cuda:1``; None for the first GPU where there is one.
        options: what is overridden in the config.

    Raises:
        MTAdaptError: when a file is missing or cannot be read safely, the checkpoint is of another config, or the
            device is not there.
    """
    given = _config(config, options)
    weights = weights or (given.get("load_from") if given is not None else None)
    if not weights:
        raise MTAdaptError("MultiTaskInferencer: weights=None; give a checkpoint, e.g. work_dirs/NAME/epoch_8.pth")
    checkpoint = checkpoint_file(weights)
    target = _device(device)
    cfg = given if given is not None else _carried_config(checkpoint, options)
    if str((cfg.get("model") or {}).get("type")).split(".")[-1] != "MultiTaskModel":
        raise MTAdaptError(
            f"{_name(cfg, checkpoint)}: its model is no MultiTaskModel; give a config with "
            "model=dict(type='MultiTaskModel')"
        )
    try:
        with warnings.catch_warnings():
            # mmseg's advice on a loss, and there is none at inference.
            warnings.filterwarnings("ignore", message="Default ``avg_non_ignore`` is False")
            model: Any = build_model(cfg, load_weights(checkpoint))
    except MTAdaptError as error:
        where = [str(checkpoint)] if given is None else [_name(cfg, checkpoint), str(checkpoint)]
        message = str(error)
        raise MTAdaptError(
            message if message.startswith(str(checkpoint)) else f"{', '.join(where)}: {message}"
        ) from error
    meta = dataset_meta(cfg, model, load_dataset_meta(checkpoint))
    return TrainedModel(cfg, model.to(target).eval(), meta, checkpoint)


def _config(config: str | Path | Config | Mapping[str, Any] | None, options: Mapping[str, Any] | None) -> Config | None:
    if config is None:
        return None
    if isinstance(config, (str, Path)):
        return load_config(str(config), dict(options or {}))
    if isinstance(config, Config):
        config = Config(config.to_dict(), filename=config.filename)
    elif isinstance(config, Mapping):
        config = Config(dict(config))
    else:
        raise MTAdaptError(f"MultiTaskInferencer: model={config!r}; give the path of a config, or a Config")
    return _with_options(config, options)


def _carried_config(checkpoint: Path, options: Mapping[str, Any] | None) -> Config:
    text = load_config_text(checkpoint)
    if not text:
        raise MTAdaptError(f"{checkpoint}: carries no config; give the config that it was trained with")
    config = literal_config(text, str(checkpoint))
    imports = config.get("custom_imports") or {}
    if imports:
        # As for a config file. These are modules that are installed here, the file brings none.
        try:
            import_modules_from_strings(**imports)
        except (ImportError, TypeError) as error:
            raise MTAdaptError(f"{checkpoint}: custom_imports={dict(imports)}: {error}") from error
    return _with_options(config, options)


def _with_options(config: Config, options: Mapping[str, Any] | None) -> Config:
    try:
        config.merge_from_dict(dict(options or {}))
    except (KeyError, TypeError, IndexError, AssertionError, AttributeError) as error:
        raise MTAdaptError(f"cfg_options {dict(options or {})}: {error}") from error
    return config


def checkpoint_file(weights: str | Path) -> Path:
    """A checkpoint as users name it: a file, or the folder of a run, whose newest whole checkpoint is taken.

    Raises:
        MTAdaptError: for a folder without checkpoints.
    """
    path = Path(weights)
    if not path.is_dir():
        return path
    found = newest_whole_checkpoint(path)
    if found is None:
        raise MTAdaptError(f"{path}: a folder without checkpoints (epoch_N.pth or iter_N.pth); give a checkpoint")
    return Path(found)


def _device(device: str | torch.device | None) -> torch.device:
    try:
        target = torch.device(device or get_device())
        torch.empty(0, device=target)
    except (RuntimeError, AssertionError) as error:
        raise MTAdaptError(
            f"device={str(device)!r}: not usable here ({str(error).splitlines()[0]}); give cpu or another one"
        ) from error
    return target


def _name(config: Config, checkpoint: Path) -> str:
    return str(config.filename or checkpoint)
