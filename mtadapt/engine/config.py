"""Read the config of a run and prepare it for the launcher and the device."""

from __future__ import annotations

import os
import zipfile
from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from mtadapt.errors import MTAdaptError, first_line


def load_config(path: str, options: dict | None = None, work_dir: str | None = None) -> Config:
    """Load a config, apply ``--cfg-options`` and choose the work directory.

    The work directory is the command line's, else the config's, else ``work_dirs/<name of the config>``.

    Raises:
        MTAdaptError: when the file is missing or cannot be read.
    """
    if not Path(path).is_file():
        raise MTAdaptError(f"{path}: no such config file")
    try:
        config = Config.fromfile(path)
    except Exception as error:
        # A config is a program of the user's own, so any exception is a mistake in it.
        raise MTAdaptError(f"{path}: {first_line(error)}; correct the config") from error
    try:
        config.merge_from_dict(options or {})
    except (KeyError, TypeError, IndexError, AssertionError, AttributeError) as error:
        raise MTAdaptError(f"--cfg-options {options}: {first_line(error)}") from error
    config.work_dir = work_dir or config.get("work_dir") or str(Path("work_dirs", Path(path).stem))
    return config


def build_runner(config: Config, runner_class: type[Runner] = Runner) -> Runner:
    """Build the runner, and with it the model, the visualizer and the hooks.

    Args:
        config: the config of the run.
        runner_class: the class of the runner.

    Raises:
        MTAdaptError: when ``load_from`` is no whole file, or a type or a setting of the config is unknown.
    """
    source = config.get("load_from")
    if source and "://" not in source:
        # What DeepSpeed saves is a folder.
        folder = Path(source).is_dir() and (config.get("strategy") or {}).get("type") == "DeepSpeedStrategy"
        if not Path(source).is_file() and not folder:
            raise MTAdaptError(f"{source}: no such checkpoint (load_from or --resume)")
        if not folder:
            with open(source, "rb") as file:
                if file.read(2) == b"PK" and not zipfile.is_zipfile(source):
                    raise MTAdaptError(f"{source}: the checkpoint is truncated; take another one or copy it again")
    try:
        return runner_class.from_cfg(config)
    except (KeyError, TypeError) as error:
        # Registries raise KeyError for an unknown type, constructors TypeError for an unknown setting.
        raise MTAdaptError(f"{config.filename}: {first_line(error)}") from error


class CfgOptions(DictAction):
    """``--cfg-options`` of MMEngine, with a message for an option without a value."""

    def __call__(
        self, parser: ArgumentParser, namespace: Namespace, values: list, option_string: str | None = None
    ) -> None:
        """Parse ``key=value`` pairs."""
        for value in values:
            if "=" not in value:
                parser.error(f"{option_string} {value}: write key=value")
        super().__call__(parser, namespace, values, option_string)


def prepare_launch(config: Config, launcher: str) -> None:
    """Set the launcher and, where there is no GPU, what several CPU processes need.

    MMEngine's start-up of distributed runs sets a CUDA device; on a machine without one the processes are joined here
    with the gloo backend and the model is wrapped without device ids.
    """
    config.launcher = launcher
    if launcher == "none" or torch.cuda.is_available():
        return
    config.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)
    if not dist.is_initialized():
        if "RANK" not in os.environ:
            raise MTAdaptError(f"--launcher {launcher} on a machine without a GPU needs torchrun: tools/dist_train.sh")
        dist.init_process_group("gloo")
