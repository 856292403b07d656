"""Take one task out of a trained model, as a config and weights of mmdet, mmseg or mmpretrain.

    python tools/model_converters/export_task.py configs/mt_camvid_adapt.py work_dirs/mt_camvid_adapt/epoch_12.pth \
        --task det --out work_dirs/camvid_det

The folder gets config.py and model.pth, with the same predictions; the library's own tools run them, for example
mmdet's tools/test.py with both as its arguments. The package has to be installed, for the backbone and the data.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from mtadapt.engine import CfgOptions, load_config
from mtadapt.engine.checkpoints import load_dataset_meta
from mtadapt.engine.measure import build_model
from mtadapt.engine.model_folder import check_folder, write_model
from mtadapt.engine.stock_check import check_stock_model
from mtadapt.engine.stock_model import export_task
from mtadapt.engine.surgery import image_size, open_network
from mtadapt.errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the trained model")
    parser.add_argument("checkpoint", type=Path, help="its checkpoint")
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument("--out", type=Path, required=True, help="new folder for config.py and model.pth")
    parser.add_argument(
        "--size", type=image_size, default=(224, 224), help="WIDTHxHEIGHT of the image of the check (default: 224x224)"
    )
    parser.add_argument("--no-check", action="store_true", help="do not compare the outputs of both models")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, help="override settings of the config, e.g. a.b=1"
    )
    return parser.parse_args()


def main() -> None:
    """Export."""
    args = parse_args()
    check_folder(args.out)
    network = open_network(args.config, args.checkpoint, args.cfg_options, need_experts=False)
    config, state = export_task(network.config, network.state, args.task)
    build_model(config, state)
    compared = None
    if not args.no_check:
        compared = check_stock_model(network.config, network.state, args.task, config, state, args.size)
    meta = load_dataset_meta(args.checkpoint)
    try:
        path, weights = write_model(args.out, config, state, dataset_meta=meta.get("tasks", {}).get(args.task))
        load_config(str(path))
    except BaseException:
        # The folder was new or empty; a second try finds it so.
        shutil.rmtree(args.out, ignore_errors=True)
        raise
    splits = [split for split in ("train", "val", "test") if f"{split}_dataloader" in config]
    print(f"model: {config.default_scope}'s {config.model.type}")
    print(f"data: {', '.join(splits) or 'none; the config has the model alone'}")
    if compared is not None:
        print(f"check: {compared:,} outputs of the heads for an image of noise are equal to the bit")
    print(f"config: {path}\nweights: {weights}")


if __name__ == "__main__":
    with one_line_errors():
        main()
