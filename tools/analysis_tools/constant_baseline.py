"""What a prediction that is the same for every image would score: the number that a model has to beat.

    python tools/analysis_tools/constant_baseline.py configs/mt_synthetic_baseline.py

Dense tasks predict, at every pixel, the class that is the most frequent there in the training images; detection
predicts for every class the training boxes' mean box, scored by how often the class occurs.
"""

from __future__ import annotations

import argparse

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from mtadapt.datasets.transforms.loading import LoadImage, LoadMultiTaskAnnotations
from mtadapt.engine import CfgOptions, load_config
from mtadapt.errors import one_line_errors
from mtadapt.evaluation import format_table
from mtadapt.registry import DATASETS, METRICS


def loaded(dataset: BaseDataset, index: int) -> dict:
    """Entry ``index`` with its ground truth and without any other transform."""
    return LoadMultiTaskAnnotations()(LoadImage()(dataset.get_data_info(index)))


def constant_prediction(dataset: BaseDataset, num: int) -> tuple[dict[str, np.ndarray], InstanceData]:
    """Most frequent class a pixel of each dense task, and one box a class, over ``num`` training images."""
    classes = {task: len(meta["classes"]) for task, meta in dataset.metainfo["tasks"].items()}
    votes: dict[str, np.ndarray] = {}
    boxes, labels = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.int64)]
    for index in np.linspace(0, len(dataset) - 1, min(num, len(dataset))).astype(int):
        entry = loaded(dataset, int(index))
        height, width = entry["ori_shape"]
        if "boxes" in entry:
            boxes.append(entry["boxes"] / np.array([width, height] * 2))
            labels.append(entry["box_labels"])
        for channel, task in enumerate(entry.get("seg_map_tasks", ())):
            seg_map = entry["gt_seg_map"].reshape(height, width, -1)[..., channel]
            votes.setdefault(task, np.zeros((classes[task], height, width), np.int32))
            seg_map = cv2.resize(seg_map, votes[task].shape[:0:-1], interpolation=cv2.INTER_NEAREST)
            votes[task] += seg_map == np.arange(classes[task])[:, None, None]
    box, label = np.concatenate(boxes), np.concatenate(labels)
    present = np.unique(label)
    mean = [box[label == one].mean(0) for one in present]
    share = [float((label == one).mean()) for one in present]
    instances = InstanceData(
        bboxes=torch.tensor(np.array(mean).reshape(-1, 4), dtype=torch.float32),
        labels=torch.from_numpy(present.astype(np.int64)),
        scores=torch.tensor(share),
    )
    return {task: count.argmax(0).astype(np.uint8) for task, count in votes.items()}, instances


def evaluate(config: Config, num: int) -> dict[str, float]:
    """Score the constant prediction with the config's own evaluator on its test images."""
    maps, boxes = constant_prediction(DATASETS.build(config.train_dataloader.dataset), num)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    metric = METRICS.build(config.test_evaluator)
    metric.dataset_meta = dataset.metainfo
    for index in range(len(dataset)):
        sample = dataset[index]["data_samples"]
        height, width = sample.ori_shape
        for task in sample.tasks:
            native = sample.task(task)
            if task in maps:
                seg_map = cv2.resize(maps[task], (width, height), interpolation=cv2.INTER_NEAREST)
                native.pred_sem_seg = PixelData(data=torch.from_numpy(seg_map)[None].long())
            else:
                native.pred_instances = boxes.clone()
                native.pred_instances.bboxes = boxes.bboxes * torch.tensor([width, height] * 2)
        metric.process(None, [sample])
    return metric.evaluate(len(dataset))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Score a prediction that is the same for every image")
    parser.add_argument("config", help="config file")
    parser.add_argument("--num", type=int, default=1000, help="training images to look at, spread over the dataset")
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions, help="override settings, e.g. a.b=1")
    args = parser.parse_args()
    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get("default_scope", "mtadapt"))
    print("A constant prediction scores\n" + format_table(evaluate(config, args.num)))


if __name__ == "__main__":
    with one_line_errors():
        main()
