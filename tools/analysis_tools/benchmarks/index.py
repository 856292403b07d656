"""Load the index of a dataset of BDD100K's size, BDD100KDataset against mmdet's CocoDataset.

The labels are random, in Scalabel JSON for BDD100KDataset and the same boxes in COCO JSON for CocoDataset; images and
maps are empty files, listed and matched by BDD100KDataset for all three tasks and not looked at by CocoDataset. Each
load is a process of its own. "worker" is a process forked from it, as by the data loader, that reads every entry.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from ._common import in_turns, peak_mib, print_machine, print_ratio
from ._data import CLASSES, coco_path, scalabel_path, write_coco, write_index_data

ROUTES = ("stock", "mtadapt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--frames", type=int, default=70_000, help="images (default: %(default)s)")
    parser.add_argument("--boxes", type=int, default=1_300_000, help="boxes in all images (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="loads of each kind that count (default: %(default)s)")
    parser.add_argument(
        "--data", type=Path, help="folder for the files, used again if it exists (default: a temporary)"
    )
    parser.add_argument("--route", choices=ROUTES, help="one load of the files in --data, in this process")


def main(args: argparse.Namespace) -> dict:
    """Print seconds and memory of both; the ratio that is returned is that of the seconds."""
    if args.route:
        result = load(args.route, args.data)
        print(json.dumps(result))
        return result
    print_machine()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.data or Path(temporary, "bdd100k")
        if not root.exists():
            write_index_data(root, args.frames, args.boxes)
            write_coco(root, root)
        sizes = [path.stat().st_size / 2**20 for path in (coco_path(root), scalabel_path(root))]
        found = in_turns("index", ROUTES, args.repeats, "--data", root)
    stock, ours = (found[route] for route in ROUTES)
    print(f"index of {ours[0]['images']:,} images and {ours[0]['boxes']:,} boxes", end="; ")
    print(f"equal number: {[stock[0][key] == ours[0][key] for key in ('images', 'boxes')] == [True, True]}")
    print_ratio("label file MiB", sizes[:1], sizes[1:])
    names = ("seconds", "peak MiB", "peak MiB over imports", "index MiB", "worker private MiB")
    ratios = {name: print_ratio(name, [run[name] for run in stock], [run[name] for run in ours]) for name in names}
    return dict(ratio=ratios["seconds"], floor=None, ratios=ratios)


def load(route: str, root: Path) -> dict:
    """Load the index by one route; return processor seconds and memory."""
    dataset_class, options = (_stock if route == "stock" else _ours)(root)
    imported = peak_mib()
    start = time.process_time()
    dataset = dataset_class(**options)
    seconds, peak = time.process_time() - start, peak_mib()
    images, boxes, private = _forked(dataset)
    return {
        "images": images,
        "boxes": boxes,
        "seconds": seconds,
        "peak MiB": peak,
        "peak MiB over imports": peak - imported,
        "index MiB": (dataset.data_bytes.nbytes + dataset.data_address.nbytes) / 2**20,
        "worker private MiB": private,
    }


def _stock(root: Path) -> tuple[type, dict[str, Any]]:
    from mmdet.datasets import CocoDataset

    metainfo = dict(classes=CLASSES)
    return CocoDataset, dict(ann_file=str(coco_path(root)), data_prefix=dict(img="images"), metainfo=metainfo)


def _ours(root: Path) -> tuple[type, dict[str, Any]]:
    # The same imports as on the other route, for a training needs them anyway.
    import mmdet.datasets  # noqa: F401

    from mtadapt.datasets import BDD100KDataset

    return BDD100KDataset, dict(data_root=str(root))


def _forked(dataset: Any) -> tuple[int, int, float]:
    """Read every entry in a forked process; return the images, the boxes and the process's private memory in MiB."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if not child:
        boxes = 0
        for number in range(len(dataset)):
            info = dataset.get_data_info(number)
            boxes += len(info["instances"] if "instances" in info else info["boxes"])
        rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
        private = sum(int(line.split()[1]) for line in rollup if line.startswith(("Private_Clean", "Private_Dirty")))
        os.write(write_end, json.dumps([len(dataset), boxes, private / 1024]).encode())
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    images, boxes, private_mib = json.loads(answer)
    return images, boxes, private_mib
