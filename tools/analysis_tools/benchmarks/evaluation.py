"""Compute the metrics of random predictions, MultiTaskMetric against mmdet's CocoMetric and mmseg's IoUMetric.

Both see the same predictions, in a process each.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import time

from ._common import in_turns, peak_mib, print_machine, print_ratio

ROUTES = ("stock", "mtadapt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--images", type=int, default=300, help="images, each with 100 detections and one map")
    parser.add_argument("--size", type=int, nargs=2, default=(720, 1280), help="height and width of the maps")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each route that count (default: %(default)s)")
    parser.add_argument("--route", choices=ROUTES, help="run one route in this process and print its numbers")


def main(args: argparse.Namespace) -> dict:
    """Print seconds and memory of both; the ratio that is returned is that of the seconds."""
    if args.route:
        result = run(args.route, args.images, tuple(args.size))
        print(json.dumps(result))
        return result
    print_machine()
    found = in_turns("evaluation", ROUTES, args.repeats, "--images", args.images, "--size", *args.size)
    stock, ours = (found[route] for route in ROUTES)
    print(f"equal numbers: {stock[0]['numbers'] == ours[0]['numbers']}")
    names = ("seconds", "peak MiB")
    ratios = {name: print_ratio(name, [run[name] for run in stock], [run[name] for run in ours]) for name in names}
    return dict(ratio=ratios["seconds"], floor=None, ratios=ratios)


def run(route: str, images: int, size: tuple[int, int]) -> dict:
    """Evaluate the same random predictions by one route; return its processor seconds, peak memory and numbers."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.evaluator import Evaluator
    from mmengine.registry import init_default_scope
    from mmengine.structures import InstanceData, PixelData
    from mmseg.structures import SegDataSample

    import mtadapt.evaluation  # noqa: F401
    from mtadapt.structures import MultiTaskDataSample

    init_default_scope("mtadapt")
    generator = torch.Generator().manual_seed(0)
    metas = {"det": {"classes": tuple("abcdefghij")}, "sem_seg": {"classes": tuple("abcdefghijklmnopqrs")}}
    configs = {"det": {"type": "mmdet.CocoMetric"}, "sem_seg": {"type": "mmseg.IoUMetric"}}
    # One map for all images: the generator's time and memory stay out of the comparison.
    truth = torch.randint(0, 19, (1, *size), generator=generator)
    predicted = torch.where(torch.rand(truth.shape, generator=generator) < 0.3, 0, truth)

    def make(i: int) -> MultiTaskDataSample:
        start = torch.rand(100, 2, generator=generator) * 500
        boxes = torch.cat([start, start + 10 + torch.rand(100, 2, generator=generator) * 150], dim=1)
        labels = torch.randint(0, 10, (100,), generator=generator)
        instances = [{"bbox": boxes[k].tolist(), "bbox_label": int(labels[k]), "ignore_flag": 0} for k in range(20)]
        meta = {"img_path": f"{i:06d}.jpg", "img_id": i, "ori_shape": size}
        det = DetDataSample(metainfo={**meta, "instances": instances})
        scores = torch.rand(100, generator=generator)
        det.pred_instances = InstanceData(bboxes=boxes + 3, scores=scores, labels=labels)
        seg = SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=truth), pred_sem_seg=PixelData(data=predicted))
        sample = MultiTaskDataSample(metainfo={**meta, "labelled_tasks": ("det", "sem_seg")})
        sample.set_task("det", det)
        sample.set_task("sem_seg", seg)
        return sample

    if route == "mtadapt":
        evaluators = {"": Evaluator({"type": "MultiTaskMetric", "tasks": configs})}
        evaluators[""].dataset_meta = {"tasks": metas}
    else:
        evaluators = {task: Evaluator(config) for task, config in configs.items()}
        for task, evaluator in evaluators.items():
            evaluator.dataset_meta = metas[task]
    seconds, numbers = 0.0, {}
    with contextlib.redirect_stdout(io.StringIO()):
        for i in range(images):
            sample = make(i)
            start = time.process_time()
            for task, evaluator in evaluators.items():
                evaluator.process([sample.get(task) if task else sample])
            seconds += time.process_time() - start
        start = time.process_time()
        for evaluator in evaluators.values():
            numbers.update(evaluator.evaluate(images))
        seconds += time.process_time() - start
    values = sorted((name.rpartition("/")[2], float(value)) for name, value in numbers.items())
    return {"seconds": seconds, "peak MiB": peak_mib(), "numbers": values}
