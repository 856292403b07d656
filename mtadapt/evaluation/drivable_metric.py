"""IoU of the drivable area, as the official BDD100K tool counts it and as a road user would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric
from torch import Tensor

from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.errors import MTAdaptError
from mtadapt.registry import METRICS

CLASSES: tuple[str, ...] = METAINFO["tasks"]["drivable"]["classes"]
BACKGROUND = 2
IGNORE = 255


@METRICS.register_module()
class DrivableMetric(BaseMetric):
    """IoU over the BDD100K drivable area: 0 direct, 1 alternative, 2 background, 255 unlabelled.

    All numbers come from one confusion matrix over the pixels of all images, and are in percent.

    ``official_*`` is what ``python -m bdd100k.eval.run -t drivable`` reports. That tool ignores every pixel whose
    **ground truth** is background, so drivable area that is predicted where there is none costs nothing: predicting
    "direct" everywhere gives an IoU of 100 for it wherever no alternative lane is labelled. A background prediction on
    a drivable pixel counts as a miss.

    - ``official_mIoU``: mean of the IoU of those of direct and alternative that occur in the ground truth, NaN if
      neither does. ``official_IoU_direct``, ``official_IoU_alternative``: 0 for a class that does not occur.
    - ``official_mAcc``: mean over the same classes of correct pixels / **predicted** pixels (the tool's ``Acc`` is a
      precision).
    - ``official_fIoU``: IoU weighted by the class's share of the counted pixels.
    - ``official_pAcc``: correct pixels / counted pixels.

    ``strict_*`` counts every pixel whose ground truth is not 255, so that background pixels predicted as drivable are
    false positives.

    - ``strict_mIoU``: mean of the IoU of those of direct and alternative that occur in the ground truth, as above.
    - ``strict_mIoU_3``: the same mean with background as a third class, which is mmseg's ``IoUMetric`` with three
      classes.
    - ``strict_IoU_direct``, ``strict_IoU_alternative``, ``strict_IoU_background``, ``strict_pAcc``.

    Ours: the strict numbers. Ours: sums in int64, where the tool's int32 is near its end on the 10,000 validation
    images; the numbers are the same as long as the tool does not overflow.

    Args:
        collect_device: See ``BaseMetric``.
        prefix: See ``BaseMetric``.

    Raises:
        MTAdaptError: If the dataset's meta names other classes than three, a map holds other values than 0, 1, 2 and
            255, or prediction and ground truth differ in size.

    Reference:
        ``bdd100k/eval/seg.py`` and ``bdd100k/label/label.py`` of https://github.com/bdd100k/bdd100k, version 1.0.1.
    """

    default_prefix = "drivable"

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Record the confusion matrix of every image.

        Args:
            data_batch: Not used.
            data_samples: Dicts of ``SegDataSample`` with ``pred_sem_seg`` and ``gt_sem_seg``, maps ``(1, H, W)``.
        """
        classes = (self.dataset_meta or {}).get("classes", CLASSES)
        if len(classes) != len(CLASSES):
            raise MTAdaptError(f"DrivableMetric counts the classes {CLASSES}, the dataset's meta has {tuple(classes)}")
        for sample in data_samples:
            prediction = sample["pred_sem_seg"]["data"].squeeze()
            truth = sample["gt_sem_seg"]["data"].squeeze().to(prediction.device)
            try:
                self.results.append(confusion(prediction, truth))
            except MTAdaptError as error:
                raise MTAdaptError(f"{sample.get('img_path', 'image')}: {error}") from None

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Compute both kinds of numbers.

        Args:
            results: Confusion matrices ``(3, 3)``.

        Returns:
            dict: Name -> percent.
        """
        matrix = np.stack(results).sum(axis=0, dtype=np.int64)
        numbers = official_numbers(matrix)
        numbers.update(strict_numbers(matrix))
        return {name: float(100 * value) for name, value in numbers.items()}


def confusion(prediction: Tensor, truth: Tensor) -> np.ndarray:
    """Count pixels by ground truth (rows) and prediction (columns).

    Args:
        prediction: Map ``(H, W)``. A value beyond 2 counts as background, as in the official tool.
        truth: Map ``(H, W)`` of 0, 1, 2 and 255; the last is not counted.

    Returns:
        numpy.ndarray: ``(3, 3)`` int64.
    """
    if prediction.shape != truth.shape:
        raise MTAdaptError(f"prediction of size {tuple(prediction.shape)}, ground truth of size {tuple(truth.shape)}")
    size = len(CLASSES)
    labelled = truth != IGNORE
    rows = truth[labelled].to(torch.int64)
    columns = prediction[labelled].to(torch.int64).clamp(max=BACKGROUND)
    counts = torch.bincount(rows * size + columns, minlength=size * size)
    if len(counts) > size * size:
        wrong = sorted(set(rows.unique().tolist()) - set(range(size)))
        raise MTAdaptError(f"drivable ground truth holds the values {wrong}; known are 0, 1, 2 and {IGNORE}")
    return counts.reshape(size, size).cpu().numpy()


def official_numbers(matrix: np.ndarray) -> dict[str, float]:
    """Return the official numbers as fractions, from a ``(3, 3)`` confusion matrix."""
    counted = matrix.copy()
    counted[BACKGROUND] = 0
    iou, precision = _iou(counted), _ratio(np.diag(counted), counted.sum(0))
    present = counted[:BACKGROUND].sum(1) > 0
    share = _ratio(counted.sum(1), counted.sum())
    return {
        "official_mIoU": _mean(iou[:BACKGROUND][present]),
        "official_IoU_direct": iou[0],
        "official_IoU_alternative": iou[1],
        "official_mAcc": _mean(precision[:BACKGROUND][present]),
        "official_fIoU": float((iou * share).sum()) if present.any() else float("nan"),
        "official_pAcc": float(np.trace(counted) / counted.sum()) if present.any() else float("nan"),
    }


def strict_numbers(matrix: np.ndarray) -> dict[str, float]:
    """Return the strict numbers as fractions, from a ``(3, 3)`` confusion matrix."""
    iou = _iou(matrix)
    present = matrix.sum(1) > 0
    return {
        "strict_mIoU": _mean(iou[:BACKGROUND][present[:BACKGROUND]]),
        "strict_mIoU_3": _mean(iou[present]),
        "strict_IoU_direct": iou[0],
        "strict_IoU_alternative": iou[1],
        "strict_IoU_background": iou[2],
        "strict_pAcc": float(np.trace(matrix) / matrix.sum()) if matrix.any() else float("nan"),
    }


def _iou(matrix: np.ndarray) -> np.ndarray:
    """Intersection over union a class, 0 where a class neither occurs nor is predicted."""
    return _ratio(np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, with 0 / 0 = 0."""
    return part / np.maximum(whole, 1)


def _mean(values: np.ndarray) -> float:
    """Mean, NaN of nothing without numpy's warning."""
    return float(values.mean()) if values.size else float("nan")
