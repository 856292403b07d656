"""Test a checkpoint: the metrics of all tasks and example pictures.

python tools/test.py configs/mt_synthetic_baseline.py work_dirs/mt_synthetic_baseline/epoch_8.pth --show-dir pictures
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mtadapt.engine import CfgOptions, build_runner, load_config, prepare_launch
from mtadapt.errors import MTAdaptError, one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the command line: the flags of mmdet's ``tools/test.py``, but for test-time augmentation."""
    parser = argparse.ArgumentParser(description="Test a checkpoint")
    parser.add_argument("config", help="test config file")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--work-dir", help="folder for the log and the metrics")
    parser.add_argument("--out", help="write the predictions to this pickle file")
    parser.add_argument("--show", action="store_true", help="show the pictures in a window")
    parser.add_argument("--show-dir", help="folder for the pictures")
    parser.add_argument("--wait-time", type=float, default=2.0, help="seconds that a window stays")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, help="override settings of the config, e.g. a.b=1 'c=[1,2]'"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none", help="job launcher")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0)
    args = parser.parse_args()
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main() -> None:
    """Test."""
    args = parse_args()
    config = load_config(args.config, args.cfg_options, args.work_dir)
    prepare_launch(config, args.launcher)
    if not Path(args.checkpoint).is_file():
        raise MTAdaptError(f"{args.checkpoint}: no such checkpoint; train first: python tools/train.py {args.config}")
    config.load_from = args.checkpoint
    if args.show or args.show_dir:
        config.default_hooks.visualization.update(show=args.show, wait_time=args.wait_time, out_dir=args.show_dir)
    if args.out:
        if not args.out.endswith((".pkl", ".pickle")):
            raise MTAdaptError(f"--out {args.out}: the file must end in .pkl or .pickle")
        evaluators = config.test_evaluator
        evaluators = list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]
        config.test_evaluator = [*evaluators, dict(type="DumpResults", out_file_path=args.out)]
    build_runner(config).test()


if __name__ == "__main__":
    with one_line_errors():
        main()
