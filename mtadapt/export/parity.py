"""How far what an exported file gives is from what the model predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from prettytable import PrettyTable
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from torch.overrides import TorchFunctionMode

from mtadapt.export.graph import MultiTaskGraph
from mtadapt.models import MultiTaskModel
from mtadapt.models.tasks import native_samples

#: From images ``(N, H, W, 3)`` uint8 to output and value.
Runner = Callable[[np.ndarray], Mapping[str, np.ndarray]]
#: Largest difference to the model's own predictions: in pixels, scores or logits.
TOLERANCE = 1e-3
#: A difference from which on rows may have changed places.
_SWAPPED = 1e-4


class Difference(NamedTuple):
    """The largest difference of a task on an image.

    Attributes:
        image: name of the image.
        task: name of the task.
        compared: what was compared, in words.
        value: the largest difference: of coordinates in pixels, scores or logits; infinite where there is nothing to
            compare with.
    """

    image: str
    task: str
    compared: str
    value: float


def compare(model: MultiTaskModel, run: Runner, image: np.ndarray, name: str, tasks: list[str]) -> list[Difference]:
    """Compare with the stock models' own predictions.

    Which of two boxes of an object is kept is open where their scores are equal, as they often are near 1. So the
    detections may also be those that the model gives when equal scores keep their order, which ONNX demands.

    Args:
        model: in evaluation mode.
        run: of the exported file, with post-processing.
        image: ``(H, W, 3)`` uint8.
        name: of the image.
        tasks: names of the tasks.

    Returns:
        One difference a task.
    """
    outputs = run(image[None])
    predicted = stock_predictions(model, image, tasks)
    found = []
    for task in tasks:
        own = {key.removeprefix(f"{task}_"): value[0] for key, value in outputs.items() if key.startswith(f"{task}_")}
        difference = _COMPARISONS[model.tasks[task].library](predicted[task], own)
        if model.tasks[task].library == "mmdet" and difference[1] > TOLERANCE:
            with _StableSort():
                ordered = stock_predictions(model, image, [task])[task]
            words, value = _compare_boxes(ordered, own)
            if value <= TOLERANCE:
                difference = (f"{words}, equal ones in their order", value)
        found.append(Difference(name, task, *difference))
    return found


@torch.no_grad()
def compare_raw(graph: MultiTaskGraph, run: Runner, image: np.ndarray, name: str) -> list[Difference]:
    """Compare a file without post-processing with the graph in PyTorch.

    Proposals stand in the order of their scores, so they are matched one to one where equal scores changed places.

    Args:
        graph: what was exported.
        run: of the file.
        image: ``(H, W, 3)`` uint8.
        name: of the image.

    Returns:
        One difference a task.
    """
    theirs, ours = graph(torch.from_numpy(image[None])), run(image[None])
    found = []
    graphs: Any = graph.graphs
    for task in graph.names:
        keys = [f"{task}_{what}" for what in graphs[task].outputs]
        pairs = [(theirs[key][0].numpy(), ours[key][0]) for key in keys]
        worst = max(float(np.abs(one - other).max(initial=0)) for one, other in pairs)
        if worst > _SWAPPED and len(keys) == 2 and pairs[0][0].ndim == 3:
            first, second = (
                np.concatenate([each.reshape(len(each), -1) for each in side], 1) for side in zip(*pairs, strict=True)
            )
            worst = _matched(cdist(first, second, "chebyshev"))
        words = ", ".join(f"{key} {one.shape}" for key, (one, _) in zip(keys, pairs, strict=True))
        found.append(Difference(name, task, words, worst))
    return found


class _StableSort(TorchFunctionMode):
    """Let equal values keep their order, which :func:`torch.sort` leaves open."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.sort, torch.Tensor.sort) and "stable" not in kwargs:
            kwargs.update(zip(("dim", "descending"), args[1:], strict=False))
            return func(args[0], stable=True, **kwargs)
        return func(*args, **kwargs)


def _matched(distance: np.ndarray) -> float:
    """The largest distance of rows that are matched one to one."""
    rows, columns = linear_sum_assignment(distance)
    return float(distance[rows, columns].max(initial=0))


@torch.no_grad()
def stock_predictions(model: Any, image: np.ndarray, tasks: list[str]) -> dict[str, Any]:
    """The native sample of each task, as :meth:`~mtadapt.models.MultiTaskModel.predict` makes it, with its logits."""
    pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    data = model.data_preprocessor(dict(inputs=[pixels], data_samples=None), False)
    shared = None if model.routing else model.extract_features(data["inputs"])
    found = {}
    for name in tasks:
        task, features = model.tasks[name], shared or model.extract_features(data["inputs"], name)
        found[name] = task.predict(features[task.backbone.source], native_samples(task, data["data_samples"]))[0]
    return found


def differences_table(differences: list[Difference]) -> str:
    """A row for each difference."""
    table = PrettyTable(["image", "task", "compared", "largest difference"])
    table.align = "l"
    table.align["largest difference"] = "r"
    table.add_rows([[each.image, each.task, each.compared, f"{each.value:.2e}"] for each in differences])
    return table.get_string()


def _compare_boxes(native: Any, own: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """Boxes are matched one to one, so that equal scores may stand in another order."""
    stock = native.pred_instances
    theirs = _detections(stock.bboxes.numpy(force=True), stock.scores.numpy(force=True))
    there = own["labels"] >= 0
    ours = _detections(own["boxes"][there], own["scores"][there])
    words = f"{len(theirs)} boxes and scores"
    if len(theirs) != len(ours):
        return f"{words}, the file gives {len(ours)}", float("inf")
    if not len(theirs):
        return words, 0.0
    distance = np.abs(theirs[:, None] - ours[None]).max(axis=-1)
    distance[stock.labels.numpy(force=True)[:, None] != own["labels"][there][None]] = 1e9
    worst = _matched(distance)
    return words, worst if worst < 1e9 else float("inf")


def _detections(boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    return np.concatenate((boxes, scores[:, None]), axis=1).astype(np.float64)


def _compare_maps(native: Any, own: Mapping[str, np.ndarray]) -> tuple[str, float]:
    """Where classes differ, how much better the model's own class is: next to nothing where two are equally good."""
    logits = native.seg_logits.data
    theirs = native.pred_sem_seg.data[0].long()
    ours = torch.from_numpy(own["classes"]).long()
    if theirs.shape != ours.shape:
        return f"a map of {tuple(theirs.shape)}, the file gives {tuple(ours.shape)}", float("inf")
    other = theirs != ours
    words = f"{theirs.numel():,} pixels" + (f", {int(other.sum())} of which differ" if other.any() else "")
    if len(logits) == 1:
        gap = (logits[0] - native.seg_logits.data.new_tensor(0.5)).abs()
    else:
        gap = logits.gather(0, theirs[None])[0] - logits.gather(0, ours[None])[0]
    return words, float(gap[other].max()) if other.any() else 0.0


def _compare_classes(native: Any, own: Mapping[str, np.ndarray]) -> tuple[str, float]:
    scores = native.pred_score.numpy(force=True)
    worst = float(np.abs(scores - own["scores"]).max())
    gap = float(scores.max() - scores[int(own["labels"])])
    return f"{len(scores)} scores", max(worst, gap)


_COMPARISONS = dict(mmdet=_compare_boxes, mmseg=_compare_maps, mmpretrain=_compare_classes)
