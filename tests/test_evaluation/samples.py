"""Samples of three tasks from the generators in ``official_bdd100k``, and a metric for them."""

from __future__ import annotations

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement, InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample

from mtadapt.evaluation import MultiTaskMetric
from mtadapt.structures import MultiTaskDataSample

from .official_bdd100k import CLASSES, IGNORED, detection_frames, maps

COCO = {"type": "mmdet.CocoMetric", "metric": "bbox", "proposal_nums": (1, 10, 100)}
CONFIG = {
    "det": COCO,
    "sem_seg": {"type": "mmseg.IoUMetric"},
    "drivable": {"type": "DrivableMetric"},
    "cls": {"type": "mmpretrain.Accuracy", "topk": (1, 2)},
}
META = {
    "tasks": {
        "det": {"classes": CLASSES},
        "sem_seg": {"classes": tuple(f"class {i}" for i in range(19))},
        "drivable": {"classes": ("direct", "alternative", "background")},
        "cls": {"classes": ("a", "b", "c", "d")},
    }
}


def det_sample(frame: dict, img_id: int = 0) -> DetDataSample:
    """The native detection sample of a frame, with boxes that exclude their last row and column."""
    instances = [
        {
            "bbox": [float(v) for v in box + (0, 0, 1, 1)],
            "bbox_label": CLASSES.index(IGNORED.get(name, name)),
            "ignore_flag": int(crowd or name in IGNORED),
        }
        for name, crowd, box in frame["labels"]
    ]
    found = frame["predictions"]
    boxes = np.array([box + (0, 0, 1, 1) for _, _, box in found], np.float32).reshape(-1, 4)
    sample = DetDataSample(metainfo={"img_id": img_id, "ori_shape": (720, 1280), "instances": instances})
    sample.pred_instances = InstanceData(
        bboxes=torch.from_numpy(boxes),
        scores=torch.tensor([score for _, score, _ in found], dtype=torch.float64),
        labels=torch.tensor([CLASSES.index(name) for name, _, _ in found], dtype=torch.long),
    )
    return sample


def seg_sample(truth: np.ndarray, predicted: np.ndarray) -> SegDataSample:
    """The native segmentation sample of a pair of maps."""
    sample = SegDataSample()
    sample.gt_sem_seg = PixelData(data=torch.from_numpy(truth.astype(np.int64))[None])
    sample.pred_sem_seg = PixelData(data=torch.from_numpy(predicted.astype(np.int64))[None])
    return sample


def sample(path: str, labelled: tuple[str, ...] | None = None, **tasks: BaseDataElement) -> MultiTaskDataSample:
    """The sample of an image; by default every task that is given is labelled."""
    made = MultiTaskDataSample(
        metainfo={"img_path": path, "labelled_tasks": tuple(tasks) if labelled is None else labelled}
    )
    for name, native in tasks.items():
        made.set_task(name, native)
    return made


def mixed_samples(count: int = 14) -> list[MultiTaskDataSample]:
    """Images with all four predictions, where the tasks are labelled on different and uneven subsets."""
    rng = np.random.default_rng(1)
    frames = detection_frames(images=count)
    sem_seg, drivable = maps(19, images=count), maps(3, images=count)
    samples = []
    for i in range(count):
        cls = DataSample().set_gt_label(int(rng.integers(4))).set_pred_score(torch.from_numpy(rng.random(4)))
        labelled = ("det", "drivable") if i < 9 else ("sem_seg", "cls") if i < 12 else ("cls",)
        samples.append(
            sample(
                f"/images/{i:02d}.jpg",
                labelled,
                det=det_sample(frames[i], i),
                sem_seg=seg_sample(*sem_seg[i]),
                drivable=seg_sample(*drivable[i]),
                cls=cls,
            )
        )
    return samples


def evaluator(config: dict | None = None, meta: dict = META, **settings: object) -> Evaluator:
    """MMEngine's evaluator around a MultiTaskMetric, as a runner builds it."""
    made = Evaluator(MultiTaskMetric(config or CONFIG, **settings))
    made.dataset_meta = meta
    return made


def evaluate(samples: list, config: dict | None = None, batch: int = 3, **settings: object) -> dict:
    """The numbers for ``samples``, fed in batches."""
    made = evaluator(config, **settings)
    for start in range(0, len(samples), batch):
        made.process(samples[start : start + batch])
    return made.evaluate(len(samples))
