"""What mmdet's ``CocoMetric`` has no setting for: two repairs of its input, and a check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from mtadapt.errors import MTAdaptError


def is_coco(metric: BaseMetric) -> bool:
    """Tell whether ``metric`` is mmdet's ``CocoMetric`` or derived from it, without importing mmdet."""
    return any(
        base.__name__ == "CocoMetric" and base.__module__.split(".")[0] == "mmdet" for base in type(metric).__mro__
    )


def prepare_results(results: list[tuple[dict, dict]], renumber: bool) -> list[tuple[dict, dict]]:
    """Return the (ground truth, prediction) pairs of one evaluation as ``CocoMetric`` needs them.

    Ours: with ``renumber`` the ``img_id`` becomes the position in ``results``, because two datasets that are evaluated
    together both count their images from 0, and equal ids would merge two images into one.

    Ours: when no image has a prediction, one empty box of score 0 is added, so that the result is an AP of 0, as in
    the official BDD100K tool. The stock metric returns no number at all then, and a checkpoint hook that waits for
    ``det/bbox_mAP`` fails in the first validation of an untrained detector.

    Args:
        results: What ``CocoMetric.process`` recorded, a pair an image. The dicts are not changed.
        renumber: Whether the ground truth is built from these results, so that the ids are free to choose.

    Returns:
        list: A new list of pairs, in the same order.
    """
    if renumber:
        results = [({**gt, "img_id": i}, {**pred, "img_id": i}) for i, (gt, pred) in enumerate(results)]
    if results and not any(len(pred["labels"]) for _, pred in results) and "masks" not in results[0][1]:
        gt, pred = results[0]
        box, score, label = np.zeros((1, 4), np.float32), np.zeros(1, np.float32), np.zeros(1, np.int64)
        results = [(gt, {**pred, "bboxes": box, "scores": score, "labels": label}), *results[1:]]
    return results


def check_image_ids(results: Mapping[str, tuple]) -> None:
    """Refuse two images of one number, which a file of annotations would judge by the same ground truth.

    Args:
        results: image to what the metric recorded for it.

    Raises:
        MTAdaptError: naming both images.
    """
    images: dict[Any, str] = {}
    for image, recorded in results.items():
        for _, prediction in recorded:
            other = images.setdefault(prediction["img_id"], image)
            if other != image:
                raise MTAdaptError(
                    f"{other} and {image} have the same img_id {prediction['img_id']}: with several detection sources "
                    "leave ann_file out of CocoMetric, and add 'instances' to the meta_keys of their PackDetInputs"
                )
