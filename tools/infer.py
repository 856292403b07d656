"""Predict images, folders, videos, addresses or a camera with a trained model, and write what it finds.

    python tools/infer.py configs/mt_synthetic_lv.py work_dirs/mt_synthetic_lv/finetune data/synthetic/images/10k/val \
        --out-dir out --formats scalabel coco --batch-size 4

OUT-DIR gets predictions.json (Scalabel), coco/, masks/ and bdd100k/ (the files of its benchmarks) as far as they are
asked for, and pictures/ with a picture of every image and an annotated video of every video.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from mmengine.logging import MMLogger

from mtadapt.apis import MultiTaskInferencer
from mtadapt.apis.outputs import FORMATS, check_free, output_paths
from mtadapt.apis.sources import check_names, expand_inputs
from mtadapt.engine import CfgOptions
from mtadapt.errors import MTAdaptError, one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the trained model, or 'checkpoint' for the one that it carries")
    parser.add_argument("checkpoint", help="its checkpoint, or the folder of a run, whose newest one is taken")
    parser.add_argument("inputs", nargs="*", help="images, folders, patterns (quoted), videos or addresses")
    parser.add_argument("--camera", type=int, metavar="N", help="read camera N until Ctrl-C, or --max-frames")
    parser.add_argument("--out-dir", help="folder for the results")
    parser.add_argument("--tasks", nargs="+", help="tasks to predict (default: all)")
    parser.add_argument("--batch-size", type=int, default=1, help="images that pass the model together (default: 1)")
    parser.add_argument(
        "--formats", nargs="*", choices=FORMATS, default=["scalabel"], help="files to write (default: scalabel)"
    )
    parser.add_argument("--submission", action="store_true", help="also write the files of BDD100K's benchmarks")
    parser.add_argument("--coco-annotations", metavar="FILE", help="COCO file whose ids the COCO results take")
    parser.add_argument("--no-pictures", action="store_true", help="write no pictures and videos")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    parser.add_argument("--show", action="store_true", help="show the pictures in a window")
    parser.add_argument("--wait-time", type=float, default=0, help="seconds for an image, 0: until a key (default: 0)")
    parser.add_argument("--score-thr", type=float, default=0.3, help="of boxes that are drawn (default: 0.3)")
    parser.add_argument("--stride", type=int, default=1, help="of videos every so many frames (default: 1)")
    parser.add_argument("--max-frames", type=int, help="of each video or camera")
    parser.add_argument("--on-error", choices=["raise", "skip"], default="raise", help="for unreadable images")
    parser.add_argument("--prefetch", type=int, help="images that are read ahead (default: two batches)")
    parser.add_argument("--max-download-mb", type=float, default=200, help="limit for addresses (default: 200)")
    parser.add_argument("--timeout", type=float, default=20, help="seconds that a server may be silent (default: 20)")
    parser.add_argument("--device", help="e.g. cpu or cuda:1 (default: the first GPU where there is one)")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, help="override settings of the config, e.g. a.b=1"
    )
    return parser.parse_args()


def main() -> None:
    """Predict."""
    args = parse_args()
    inputs = [*args.inputs, *([] if args.camera is None else [args.camera])]
    if not inputs:
        raise MTAdaptError("no inputs: name images, folders, videos or addresses, or --camera 0")
    if not args.out_dir and not args.show:
        raise MTAdaptError("nothing would be left: give --out-dir, or --show")
    _check_files(args, inputs)
    # Without a run, MMEngine has no logger for warnings about inputs.
    MMLogger.get_instance("mtadapt", log_level=logging.WARNING)
    config = None if args.config == "checkpoint" else args.config
    inferencer = MultiTaskInferencer(config, args.checkpoint, args.device, cfg_options=args.cfg_options)
    writing = dict(
        out_dir=args.out_dir,
        formats=args.formats,
        submission=args.submission,
        coco_annotations=args.coco_annotations,
        overwrite=args.overwrite,
    )
    done = inferencer(
        inputs,
        batch_size=args.batch_size,
        tasks=args.tasks,
        draw=not args.no_pictures,
        show=args.show,
        wait_time=args.wait_time,
        pred_score_thr=args.score_thr,
        stride=args.stride,
        max_frames=args.max_frames,
        on_error=args.on_error,
        prefetch=args.prefetch,
        max_download_mb=args.max_download_mb,
        timeout=args.timeout,
        return_predictions=False,
        **(writing if args.out_dir else {}),
    )
    skipped = f", {done['skipped']} skipped" if done["skipped"] else ""
    print(f"model: {Path(inferencer.checkpoint)} ({', '.join(inferencer.chosen_tasks(args.tasks))})")
    print(f"images: {done['images']}{skipped}")
    for path in done["outputs"]:
        print(f"written: {path}")


def _check_files(args: argparse.Namespace, inputs: list[str | int]) -> None:
    """Before the model is built, which takes longer."""
    entries = expand_inputs(inputs)
    if args.out_dir:
        check_names(entries, flat=args.submission)
        for path in output_paths(args.out_dir, args.formats, not args.no_pictures, args.submission).values():
            check_free(path, args.overwrite)


if __name__ == "__main__":
    with one_line_errors():
        main()
