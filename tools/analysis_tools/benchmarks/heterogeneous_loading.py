"""Load a mix of three sources through one data loader, against each source alone through a stock one.

The sources have the stock datasets and pipelines of configs/_base_/datasets/het_in1k_coco_ade20k.py: classification,
detection and segmentation with mmpretrain, mmdet and mmseg, on rendered scenes of 640x480 and objects of 500x375
pixels. Alone: the source's own dataset, InfiniteSampler and a batch of the same size. Mix: HeterogeneousDataset and
HeterogeneousBatchSampler. The rate that the sources alone allow is the harmonic mean of their rates, weighted by the
images that each has in the mix. All in one process, in seconds of the processor.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ._common import print_machine, print_ratio

CONFIGS = Path(__file__).parents[3] / "configs/_base_/datasets"
SIZE, OBJECT_SIZE = (640, 480), (500, 375)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--images", type=int, default=24, help="training images a source (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=100, help="batches a round (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="rounds that count (default: %(default)s)")
    parser.add_argument("--mode", choices=["alternate", "mixed"], default="mixed", help="(default: %(default)s)")
    parser.add_argument("--data", type=Path, help="folder of the three layouts (default: made)")


def main(args: argparse.Namespace) -> dict:
    """Print images a second of both, and the ratio."""
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    print_machine()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.data or Path(temporary, "data")
        if not args.data:
            from mtadapt.datasets.synthetic import write_heterogeneous

            write_heterogeneous(root, args.images, 8, SIZE, workers=1)
            for path in (root / "imagenet").rglob("*.JPEG"):
                cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), OBJECT_SIZE))
        mix, alone = _loaders(root, args.mode)
        allowed, ours = [], []
        for number in range(args.repeats + 1):
            images, seconds = _load(mix, args.batches)
            # The same images of each source in the same round, so that a busy machine slows both.
            expected = sum(_load_images(alone[name], count) for name, count in images.items())
            if number:
                total = sum(images.values())
                ours.append(total / seconds)
                allowed.append(total / expected)
    print_ratio("images a second of one core", allowed, ours, ("harmonic mean of the sources", "mix"))
    ratio = statistics.median(mixed / single for mixed, single in zip(ours, allowed, strict=True))
    print(f"median of the rounds' ratios: {ratio:.3f}")
    return dict(ratio=ratio, floor=1.0, images_a_second=statistics.median(ours))


def _loaders(root: Path, mode: str) -> tuple[Iterator[dict], dict[str, Iterator[dict]]]:
    """Endless batches of the mix, and of each source alone."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from mmengine.runner import Runner

    import mtadapt.datasets  # noqa: F401

    init_default_scope("mtadapt")
    loader = Config.fromfile(CONFIGS / "het_synthetic.py").train_dataloader
    pipelines = Config.fromfile(CONFIGS / "het_in1k_coco_ade20k.py").sources
    for source, real in zip(loader.dataset.sources.values(), pipelines.values(), strict=True):
        source.dataset.update(data_root=str(root / Path(source.dataset.data_root).name), pipeline=real.dataset.pipeline)
    loader.update(num_workers=0, persistent_workers=False)
    sizes = dict(zip(loader.dataset.sources, (16, 2, 2), strict=True))
    loader.batch_sampler.batch_size = sizes
    if mode == "mixed":
        loader.batch_sampler = dict(type=loader.batch_sampler.type, mode=mode, batch_size=sizes)
    alone = {
        name: dict(
            num_workers=0,
            batch_size=sizes[name],
            sampler=dict(type="InfiniteSampler"),
            dataset=dict(source.dataset, _scope_=source.dataset.type.split(".")[0]),
        )
        for name, source in loader.dataset.sources.items()
    }
    build: Any = Runner.build_dataloader
    return iter(build(loader, seed=0)), {name: iter(build(each, seed=0)) for name, each in alone.items()}


def _load(batches: Iterator[dict], count: int) -> tuple[Counter[str], float]:
    """Images by source of ``count`` batches, and the processor's seconds that they took."""
    images: Counter[str] = Counter()
    start = time.process_time()
    for batch in itertools.islice(batches, count):
        images.update(sample.source for sample in batch["data_samples"])
    return images, time.process_time() - start


def _load_images(batches: Iterator[dict], count: int) -> float:
    """Seconds of the processor for ``count`` images, which are whole batches."""
    start = time.process_time()
    loaded = 0
    while loaded < count:
        loaded += len(next(batches)["inputs"])
    return time.process_time() - start
