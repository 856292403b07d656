"""Paint driving scenes with labels of all three tasks, in the layout of BDD100K.

    python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 2000 --val 200 --size 640x360 --seed 0

The same options give the same bytes, whatever the number of workers. A second call with the same options does
nothing. ``--sem-seg-fraction 0.1`` puts a tenth of the images into the 10k set, which is the one with semantic maps.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from mtadapt.errors import one_line_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", help="folder of the dataset")
    parser.add_argument("--train", type=int, default=200, help="number of training images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=50, help="number of validation images (default: %(default)s)")
    parser.add_argument("--size", default="640x360", help="width x height in pixels (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the scenes (default: %(default)s)")
    parser.add_argument(
        "--sem-seg-fraction",
        type=float,
        default=1.0,
        help="share of the images with a semantic map (default: %(default)s)",
    )
    parser.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    parser.add_argument("--overwrite", action="store_true", help="replace scenes that were written with other options")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the dataset and say how long it took."""
    args = parse_args(argv)
    from mtadapt.datasets.synthetic import parse_size, write_bdd100k  # after the arguments: importing takes a while

    size = parse_size(args.size)
    start = time.perf_counter()
    written = write_bdd100k(
        args.out,
        args.train,
        args.val,
        size,
        args.seed,
        sem_seg_fraction=args.sem_seg_fraction,
        workers=args.workers,
        overwrite=args.overwrite,
    )
    if written:
        print(f"{args.out}: {args.train} train and {args.val} val images in {time.perf_counter() - start:.1f} s")
    else:
        print(f"{args.out}: up to date")


if __name__ == "__main__":
    with one_line_errors():
        main()
