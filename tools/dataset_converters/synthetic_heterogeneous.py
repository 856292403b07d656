"""Paint three datasets of driving scenes, one a task, in the layouts of ImageNet, COCO and ADE20K.

    python tools/dataset_converters/synthetic_heterogeneous.py data/synthetic_heterogeneous \\
        --train 400 --val 80 --size 320x192 --seed 0

Below the folder: ``imagenet`` (class folders, crops of objects), ``coco`` (boxes) and ``ade20k`` (maps, 0 = ignore). No
scene is in two of them. The same options give the same bytes, whatever the number of workers. A second call with
the same options does nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from mtadapt.errors import one_line_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder of the three datasets")
    parser.add_argument("--train", type=int, default=400, help="training images of each (default: %(default)s)")
    parser.add_argument("--val", type=int, default=80, help="validation images of each (default: %(default)s)")
    parser.add_argument(
        "--size", default="320x192", help="width x height of the scenes in pixels (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    parser.add_argument("--overwrite", action="store_true", help="replace scenes that were written with other options")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the datasets and say how long it took."""
    args = parse_args(argv)
    from mtadapt.datasets.synthetic import (
        parse_size,
        write_heterogeneous,
    )  # after the arguments: importing takes a while

    size = parse_size(args.size)
    start = time.perf_counter()
    written = write_heterogeneous(
        args.out, args.train, args.val, size, args.seed, workers=args.workers, overwrite=args.overwrite
    )
    if written:
        print(f"{args.out}: 3 x {args.train} train and {args.val} val images in {time.perf_counter() - start:.1f} s")
    else:
        print(f"{args.out}: up to date")


if __name__ == "__main__":
    with one_line_errors():
        main()
