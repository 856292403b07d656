"""Samples with labels of several kinds, some unknown, and evaluators for them."""

from __future__ import annotations

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmpretrain.structures import DataSample

from mtadapt.structures import MultiTaskDataSample

from .samples import sample

KINDS = {"style": (0, 4), "objects": (4, 7), "relations": (7, 9)}
CLASSES = (
    "timeofday=day",
    "timeofday=dawn",
    "timeofday=night",
    "weather=rainy",
    "car",
    "bus",
    "person",
    "car left of bus",
    "person above car",
)
OWN = {"classes": CLASSES, "kinds": KINDS}
META = {"tasks": {"det": {"classes": ("car",)}, "mlc": OWN}}


def native(truth: np.ndarray, scores: np.ndarray | None = None) -> DataSample:
    """The native sample of the task."""
    made = DataSample().set_gt_score(torch.from_numpy(np.asarray(truth, np.float32)))
    return made if scores is None else made.set_pred_score(torch.from_numpy(np.asarray(scores, np.float32)))


def labelled(truth: np.ndarray, scores: np.ndarray | None = None) -> list[MultiTaskDataSample]:
    """A sample a row."""
    scores = [None] * len(truth) if scores is None else scores
    return [
        sample(f"/images/{number:03d}.jpg", mlc=native(*row))
        for number, row in enumerate(zip(truth, scores, strict=True))
    ]


def random_labels(images: int = 60, seed: int = 0, unknown: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Ground truth with unknown labels, and scores of which some are equal."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, (images, len(CLASSES)))
    scores = (0.3 * truth + rng.random(truth.shape)).round(1)
    return np.where(rng.random(truth.shape) < unknown, -1, truth), scores


def numbers(metric: object, samples: list, meta: dict = META, batch: int = 7, size: int | None = None) -> dict:
    """The numbers of a metric that MMEngine's evaluator feeds in batches."""
    made = Evaluator(metric)
    made.dataset_meta = meta
    for start in range(0, len(samples), batch):
        made.process(samples[start : start + batch])
    return made.evaluate(size or len(samples))
