"""Mean average precision over labels of several kinds, of which an image may know some only."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from mtadapt.datasets.multi_label.vocabulary import UNKNOWN
from mtadapt.errors import MTAdaptError
from mtadapt.registry import METRICS

TASK = "mlc"


@METRICS.register_module()
class MultiLabelMAP(BaseMetric):
    """Mean average precision over the labels, and over those of each kind, in percent.

    The average precision of a label is that of the images whose label is known (1 or 0). A label counts if at least
    one of them has it and at least one has not; the others are left out of the means, and the log says how many. A
    mean over nothing is left out as well.

    ``mlc/mAP`` is the mean over all labels, ``mlc/mAP_<kind>`` that over the labels of one kind.

    Ours: images of one score enter the curve of precision and recall together, as in scikit-learn. mmpretrain's
    ``AveragePrecision`` ranks them in their order instead, so that a network that gives every image the same score
    has 100 percent if the images with the label come first. Without equal scores and unknown labels the two agree.

    Works alone in an evaluator and, as the metric of the task ``mlc``, in ``MultiTaskMetric``, which counts every
    image once when only some of the images are labelled for it.

    Args:
        collect_device: See ``BaseMetric``.
        prefix: See ``BaseMetric``.
        collect_dir: See ``BaseMetric``.

    Raises:
        MTAdaptError: If the dataset's meta names no labels, or a sample has no scores, scores of another number of
            labels, or a ground truth other than 1, 0 and -1.
    """

    default_prefix = TASK

    def __init__(self, collect_device: str = "cpu", prefix: str | None = None, collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self._left_out: list[str] = []

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Record the scores of every image.

        Args:
            data_batch: Not used.
            data_samples: Dicts of ``MultiTaskDataSample`` with ``mlc``, or of its native sample alone, with
                ``gt_score`` (1, 0, -1 for unknown) and ``pred_score``, both ``(K,)``. One that is not labelled for
                the task counts as one that knows no label.
        """
        names = label_names(self.dataset_meta, type(self).__name__)
        for sample in data_samples:
            truth = ground_truth(sample, names)
            scores = native_sample(sample).get("pred_score")
            if scores is None:
                raise MTAdaptError(
                    f"{image_name(sample)}: the model returned no 'pred_score' for its labels: switch its multi_label "
                    "branch on, or leave MultiLabelMAP out of the evaluator"
                )
            scores = torch.as_tensor(scores).detach().float().cpu().numpy()
            if scores.shape != truth.shape:
                raise MTAdaptError(
                    f"{image_name(sample)}: the model gives scores of shape {scores.shape}, the dataset has "
                    f"{len(names)} labels: give both the same labels=..."
                )
            self.results.append((truth, scores))

    def compute_metrics(self, results: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """Compute the means.

        Args:
            results: Ground truth and scores of every image.

        Returns:
            dict: Name -> percent.
        """
        meta = task_meta(self.dataset_meta)
        names, kinds = tuple(meta["classes"]), meta.get("kinds") or {}
        if not results:
            return {}
        truth, scores = (np.stack(column) for column in zip(*results, strict=True))
        precisions = label_precisions(truth, scores)
        self._log_left_out([name for name, value in zip(names, precisions, strict=True) if value is None])
        ranges = {"mAP": (0, len(names)), **{f"mAP_{kind}": span for kind, span in kinds.items()}}
        numbers = {}
        for name, (start, stop) in ranges.items():
            counted = [value for value in precisions[start:stop] if value is not None]
            if counted:
                numbers[name] = 100 * float(np.mean(counted))
        return numbers

    def _log_left_out(self, names: list[str]) -> None:
        """Say once which labels do not count."""
        if names and names != self._left_out:
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            print_log(
                f"MultiLabelMAP leaves out {len(names)} labels for which no image, or every image, of those that know "
                f"them has the label: {shown}",
                logger="current",
                level=logging.WARNING,
            )
        self._left_out = names


def label_precisions(truth: np.ndarray, scores: np.ndarray) -> list[float | None]:
    """Average precision of every label over the images that know it.

    Args:
        truth: ``(N, K)`` of 1, 0 and -1.
        scores: ``(N, K)``.

    Returns:
        list: ``K`` fractions; None for a label without a positive or without a negative image.
    """
    precisions: list[float | None] = []
    for label_truth, label_scores in zip(truth.T, scores.T, strict=True):
        known = label_truth != UNKNOWN
        positive = label_truth[known] == 1
        one_of_each = positive.any() and not positive.all()
        precisions.append(average_precision(label_scores[known], positive) if one_of_each else None)
    return precisions


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Sum over the distinct scores of precision times the recall that is gained, as a fraction.

    Args:
        scores: ``(N,)``. If one is not a number, the result is none either.
        positive: ``(N,)`` bool, at least one of them true.
    """
    if not np.isfinite(scores).all():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits = np.cumsum(positive[order])[ends]
    gained = np.diff(hits, prepend=0) / hits[-1]
    return float((gained * hits / (ends + 1)).sum())


def task_meta(dataset_meta: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The meta of the multi-label task: ``classes`` and ``kinds``, of a dataset of one task or of several."""
    meta = dataset_meta or {}
    return meta["tasks"].get(TASK, {}) if "tasks" in meta else meta


def label_names(dataset_meta: Mapping[str, Any] | None, metric: str) -> tuple[str, ...]:
    """Names of the labels.

    Raises:
        MTAdaptError: naming the metric, when the meta has none.
    """
    names = task_meta(dataset_meta).get("classes")
    if not names:
        raise MTAdaptError(
            f"{metric}: the dataset's metainfo has no 'classes' for the task {TASK!r}: validate on a "
            "MultiLabelDataset, or on a source of that type with this task"
        )
    return tuple(names)


def native_sample(sample: Mapping[str, Any]) -> Mapping[str, Any]:
    """The native sample of the multi-label task as a dict; ``sample`` itself if it is that."""
    native = sample.get(TASK, sample)
    return native.to_dict() if isinstance(native, BaseDataElement) else native


def ground_truth(sample: Mapping[str, Any], names: Sequence[str]) -> np.ndarray:
    """Ground truth of a sample, ``(K,)`` int8; all unknown if it is not labelled for the task.

    Raises:
        MTAdaptError: naming the image, when there is none, or it has another length or other values than 1, 0, -1.
    """
    truth = native_sample(sample).get("gt_score")
    if TASK not in sample.get("labelled_tasks", (TASK,)):
        return np.full(len(names), UNKNOWN, np.int8)
    if truth is None:
        raise MTAdaptError(f"{image_name(sample)} has no 'gt_score': its pipeline must end with PackPretrainInputs")
    values = torch.as_tensor(truth).detach().float().cpu().numpy()
    if values.shape != (len(names),) or not np.isin(values, (1, 0, UNKNOWN)).all():
        raise MTAdaptError(
            f"{image_name(sample)}: gt_score must hold 1, 0 or {UNKNOWN} for each of the dataset's {len(names)} "
            f"labels; it has the shape {values.shape} and the values {sorted(set(values.ravel().tolist()))[:5]}"
        )
    return values.astype(np.int8)


def image_name(sample: Mapping[str, Any]) -> str:
    """Path or number of a sample's image."""
    return str(sample.get("img_path", sample.get("img_id", "an image")))
