"""Run the training pipeline of configs/_base_/datasets/bdd100k.py on one core, against the stock pipelines.

Both yield images, boxes and the maps of two tasks of the same synthetic scenes, from dataset index to packed sample.
mtadapt: BDD100KDataset with LoadImage, LoadMultiTaskAnnotations, mmdet.Resize, mmdet.RandomFlip, PackMultiTaskInputs.
"stock, a pipeline a task": mmdet's CocoDataset with LoadImageFromFile, LoadAnnotations, Resize, RandomFlip,
PackDetInputs, and twice mmseg's BaseSegDataset with LoadImageFromFile, LoadAnnotations, mmseg.Resize, RandomFlip,
PackSegInputs: each decodes the image.
"stock, two pipelines": CocoDataset with LoadAnnotations(with_seg=True) yields the boxes and the drivable map, and one
BaseSegDataset the semantic map. No stock pipeline yields two maps.
"decoding alone": OpenCV's decoder on the bytes of the image and of both maps, and nothing else; mtadapt cannot be
faster than that. Before the timing, without flips, all values are compared.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ._common import print_machine, print_ratio
from ._data import CLASSES, SIZE, coco_path, write_coco

CONFIG = Path(__file__).parents[3] / "configs/_base_/datasets/bdd100k.py"
STOCK = ("stock, a pipeline a task", "stock, two pipelines")
MAPS = ("sem_seg", "drivable")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--images", type=int, default=16, help="scenes of 1280x720 (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="passes that count (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="folder of BDD100K's layout with all labels (default: made)")


def main(args: argparse.Namespace) -> dict:
    """Print images a second; the ratio and the floor that are returned are those against a pipeline a task."""
    _one_thread()
    print_machine()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.data or Path(temporary, "bdd100k")
        if not args.data:
            from mtadapt.datasets.synthetic import write_bdd100k

            write_bdd100k(root, args.images, 1, SIZE, workers=1)
        write_coco(root, Path(temporary))
        plain = _routes(root, coco_path(Path(temporary)), flip=0.0)
        print(f"equal images, boxes and maps: {_equal(plain)}")
        routes = _routes(root, coco_path(Path(temporary)), flip=0.5)
        seconds: dict[str, list[float]] = {name: [] for name in routes}
        decoding: list[float] = []
        for number in range(args.repeats + 1):
            for name, datasets in routes.items():
                elapsed = _pass(datasets)
                if number:
                    seconds[name].append(elapsed)
            decoding.append(_decode(routes["mtadapt"][0]))
    count = len(routes["mtadapt"][0])
    rates = {name: [count / value for value in values] for name, values in seconds.items()}
    ratios, bounds = {}, {}
    for name in STOCK:
        ratios[name] = print_ratio("images a second of one core", rates[name], rates["mtadapt"], (name, "mtadapt"))
        bound = [count / value for value in decoding[1:]]
        bounds[name] = print_ratio("  upper bound", rates[name], bound, (name, "decoding alone"))
    return dict(ratio=ratios[STOCK[0]], floor=bounds[STOCK[0]], ratios=ratios)


def _one_thread() -> None:
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _pass(datasets: Iterable[Any]) -> float:
    """Seconds of the processor for every sample of all datasets."""
    start = time.process_time()
    for dataset in datasets:
        for number in range(len(dataset)):
            dataset[number]
    return time.process_time() - start


def _decode(dataset: Any) -> float:
    """Seconds of the processor for decoding the files of every sample."""
    import cv2
    import numpy as np

    infos = [dataset.get_data_info(number) for number in range(len(dataset))]
    seconds = 0.0
    for info in infos:
        for path in (info["img_path"], *info["seg_map_paths"].values()):
            raw = np.fromfile(path, np.uint8)
            start = time.process_time()
            cv2.imdecode(raw, cv2.IMREAD_COLOR if path == info["img_path"] else cv2.IMREAD_UNCHANGED)
            seconds += time.process_time() - start
    return seconds


def _routes(root: Path, annotations: Path, flip: float) -> dict[str, list[Any]]:
    """The datasets that together yield everything, by route."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    import mtadapt.datasets  # noqa: F401
    from mtadapt.registry import DATASETS

    init_default_scope("mtadapt")
    config = Config.fromfile(CONFIG).train_dataloader.dataset
    for transform in config.pipeline:
        if transform.type.endswith("RandomFlip"):
            transform.prob = flip
    config.update(data_root=str(root), on_error="raise")
    det, det_and_drivable = (_det(root, annotations, flip, with_seg) for with_seg in (False, True))
    sem_seg, drivable = (_seg(root, task, flip) for task in MAPS)
    configs = {
        STOCK[0]: [det, sem_seg, drivable],
        STOCK[1]: [det_and_drivable, sem_seg],
        "mtadapt": [config],
    }
    return {name: [DATASETS.build(each) for each in group] for name, group in configs.items()}


def _det(root: Path, annotations: Path, flip: float, with_seg: bool) -> dict:
    return dict(
        type="mmdet.CocoDataset",
        ann_file=str(annotations),
        data_prefix=dict(img=str(root / "images/100k/train"), seg=str(root / "labels/drivable/masks/train")),
        metainfo=dict(classes=CLASSES),
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="mmdet.LoadAnnotations", with_bbox=True, with_seg=with_seg),
            dict(type="mmdet.Resize", scale=SIZE, keep_ratio=True),
            dict(type="mmdet.RandomFlip", prob=flip),
            dict(type="mmdet.PackDetInputs"),
        ],
    )


def _seg(root: Path, task: str, flip: float) -> dict:
    image_set = "10k" if task == "sem_seg" else "100k"
    return dict(
        type="mmseg.BaseSegDataset",
        data_prefix=dict(
            img_path=str(root / f"images/{image_set}/train"), seg_map_path=str(root / f"labels/{task}/masks/train")
        ),
        img_suffix=".jpg",
        seg_map_suffix=".png",
        reduce_zero_label=False,
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="mmseg.LoadAnnotations"),
            dict(type="mmseg.Resize", scale=SIZE, keep_ratio=True),
            dict(type="RandomFlip", prob=flip),
            dict(type="mmseg.PackSegInputs"),
        ],
    )


def _equal(routes: dict[str, list[Any]]) -> bool:
    """Whether every value that a route yields is what mtadapt yields, and every route yields all of them."""
    found = {name: _values(datasets) for name, datasets in routes.items()}
    ours = {key: group[0].double() for key, group in found.pop("mtadapt").items()}
    return all(
        values.keys() == ours.keys()
        and all(each.double().equal(ours[key]) for key, group in values.items() for each in group)
        for values in found.values()
    )


def _values(datasets: Iterable[Any]) -> dict[tuple[str, str], list[Any]]:
    """The tensors of all samples, by kind and stem."""
    values: dict[tuple[str, str], list[Any]] = {}
    for task, dataset in zip(("det", *MAPS), datasets, strict=False):
        for number in range(len(dataset)):
            data = dataset[number]
            sample = data["data_samples"]
            parts = {task: sample}
            if hasattr(sample, "labelled_tasks"):
                parts = {each: sample.get(each) for each in sample.labelled_tasks}
            elif task == "det" and "gt_sem_seg" in sample:
                parts["drivable"] = sample
            tensors = {"image": data["inputs"]}
            for part, native in parts.items():
                if part == "det":
                    boxes = native.gt_instances.bboxes
                    tensors.update(boxes=getattr(boxes, "tensor", boxes), labels=native.gt_instances.labels)
                else:
                    # mmdet and mmseg name the data of a map differently.
                    tensors[part] = native.gt_sem_seg.get("sem_seg", native.gt_sem_seg.get("data"))
            for kind, tensor in tensors.items():
                values.setdefault((kind, Path(sample.img_path).stem), []).append(tensor)
    return values
