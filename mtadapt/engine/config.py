"""Read the config of a run and prepare it for the launcher and the device."""

from __future__ import annotations

import os
from pathlib import Path

import torch
import torch.distributed as dist
from mmengine.config import Config

from mtadapt.errors import MTAdaptError


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
    except (SyntaxError, FileNotFoundError, KeyError) as error:
        raise MTAdaptError(f"{path}: {str(error).splitlines()[0]}") from error
    if options:
        config.merge_from_dict(options)
    config.work_dir = work_dir or config.get("work_dir") or str(Path("work_dirs", Path(path).stem))
    return config


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
