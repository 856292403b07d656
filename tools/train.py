"""Train a config.

python tools/train.py configs/mt_synthetic_baseline.py
python tools/train.py configs/mt_bdd_baseline.py --amp --cfg-options train_dataloader.batch_size=4
"""

from __future__ import annotations

import argparse
import os

import torch

from mtadapt.engine import (
    CfgOptions,
    amp_variant,
    build_runner,
    load_config,
    newest_whole_checkpoint,
    prepare_launch,
    runner_class,
    train_in_stages,
)
from mtadapt.errors import MTAdaptError, one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the command line: the flags of mmdet's ``tools/train.py``."""
    parser = argparse.ArgumentParser(description="Train a config")
    parser.add_argument("config", help="train config file")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints")
    parser.add_argument("--amp", action="store_true", help="automatic mixed precision")
    parser.add_argument("--auto-scale-lr", action="store_true", help="scale the learning rate by the batch size")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        help="resume from this checkpoint; without a path from the latest one in the work directory (of all stages)",
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, help="override settings of the config, e.g. a.b=1 'c=[1,2]'"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> None:
    """Train."""
    args = parse_args()
    config = load_config(args.config, args.cfg_options, args.work_dir)
    prepare_launch(config, args.launcher)
    if args.amp:
        if not torch.cuda.is_available():
            raise MTAdaptError("--amp: automatic mixed precision needs a GPU; leave it out on a CPU")
        for part in (config, *(config.get("stages") or ())):
            if part.get("optim_wrapper"):
                wrapper = amp_variant(part.optim_wrapper.get("type", "OptimWrapper"))
                part.optim_wrapper.update(type=wrapper, loss_scale="dynamic")
    if args.auto_scale_lr:
        if "base_batch_size" not in config.get("auto_scale_lr", {}):
            raise MTAdaptError(f"{args.config}: --auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...)")
        sampler = config.train_dataloader.get("batch_sampler") or {}
        if str(sampler.get("type")).endswith("HeterogeneousBatchSampler"):
            raise MTAdaptError(
                "--auto-scale-lr: sources have batches of their own sizes; set the learning rate instead"
            )
        config.auto_scale_lr.enable = True
    # The weights that the config starts from, also where there is nothing to resume yet.
    start = config.get("load_from")
    if args.resume:
        config.resume = True
        config.load_from = None if args.resume == "auto" else args.resume
    kind = runner_class(config)
    if config.get("stages") is not None:
        train_in_stages(config, start if args.resume == "auto" else None)
    else:
        if args.resume == "auto":
            newest = newest_whole_checkpoint(config.work_dir)
            config.load_from, config.resume = newest or start, newest is not None
        # The config in the folder of a stage is that of the stage alone.
        build_runner(config, kind).train()


if __name__ == "__main__":
    with one_line_errors():
        main()
