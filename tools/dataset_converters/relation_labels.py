"""Count the spatial relations in a label file and print the most frequent ones as a list for a config.

    python tools/dataset_converters/relation_labels.py data/coco/annotations/instances_train2017.json --top 60
    python tools/dataset_converters/relation_labels.py data/bdd100k/labels/det_20/det_train.json \\
        --names pedestrian=person rider=person,rider

The file is one of COCO instances or of BDD100K's detection labels. ``A left of B`` is listed with ``B left of A``,
which a horizontal flip turns it into, so the list may be one longer than ``--top``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mtadapt.errors import MTAdaptError, one_line_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", help="COCO instances or BDD100K detection labels, .json")
    parser.add_argument("--top", type=int, default=40, help="how many relations (default: %(default)s)")
    parser.add_argument("--least", type=int, default=1, help="least number of images (default: %(default)s)")
    parser.add_argument(
        "--names", nargs="*", default=[], metavar="CATEGORY=NAME[,NAME]", help="names of categories among the labels"
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the list."""
    args = parse_args(argv)
    from mtadapt.datasets.multi_label.relation_counts import count_relations, most_frequent  # importing takes a while

    names = {}
    for pair in args.names:
        category, equals, given = pair.partition("=")
        if not equals:
            raise MTAdaptError(f"--names {pair}: write CATEGORY=NAME or CATEGORY=NAME,NAME")
        names[category] = [name for name in given.split(",") if name]
    if args.top < 1 or args.least < 1:
        raise MTAdaptError(f"--top {args.top} --least {args.least}: write numbers of at least 1")
    counts, images = count_relations(args.labels, names, args.least)
    print(f"# {args.labels}: {len(counts):,} relations in {images:,} images")
    print("relations = [")
    for name, number in most_frequent(counts, args.top):
        print(f'    "{name}",  # {number:,}')
    print("]")


if __name__ == "__main__":
    with one_line_errors():
        main()
