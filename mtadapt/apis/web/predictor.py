"""Predictions and what the page shows of them; one at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.structures import InstanceData, PixelData

from mtadapt.apis.inferencer import MultiTaskInferencer
from mtadapt.apis.outputs import scalabel_frame
from mtadapt.apis.outputs.predictions import boxes_of, label_of, map_of
from mtadapt.apis.sources import Frame
from mtadapt.errors import MTAdaptError
from mtadapt.models import LVAdapter
from mtadapt.models.text import TextEncoder, find_renaming_encoder
from mtadapt.structures import MultiTaskDataSample

#: Task to the names that stand for its classes.
Names = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Prediction:
    """A picture with what the model sees in it.

    Attributes:
        name: of the file.
        image: what was predicted and is shown, BGR ``(H, W, 3)`` uint8.
        size: width and height of the file's picture, whose pixels tables and documents count in.
        sample: predictions of all tasks, in the size of ``image``; maps are uint8 where the classes allow it.
        seconds: that the prediction took.
        renamed: classes that had another name, as ``automobile for car``.
    """

    name: str
    image: np.ndarray
    size: tuple[int, int]
    sample: MultiTaskDataSample
    seconds: float
    renamed: tuple[str, ...] = ()


class Predictor:
    """What the page asks of a model. Visitors share the model, and no setting of one of them reaches another.

    Args:
        inferencer: the trained model.

    Attributes:
        tasks: names of the tasks.
        prompts: task to its class names, for the tasks of the model's LV-Adapter; empty without one.
        fixed: why the names cannot be changed; empty where they can.
    """

    def __init__(self, inferencer: MultiTaskInferencer) -> None:
        self._inferencer = inferencer
        self._lock = threading.Lock()
        self._adapter = next((one for one in inferencer.model.modules() if isinstance(one, LVAdapter)), None)
        self._encoder: TextEncoder | None = None
        self.tasks = inferencer.tasks
        classes = {} if self._adapter is None else self._adapter.classes
        self.prompts: dict[str, tuple[str, ...]] = {task: classes[task] for task in self.tasks if task in classes}
        self.fixed = self._find_encoder()

    def _find_encoder(self) -> str:
        if self._adapter is None:
            return "This model has no LV-Adapter, so no names of classes take part in its predictions."
        try:
            self._encoder = find_renaming_encoder(self._adapter.language)
        except MTAdaptError as error:
            return f"The names cannot be changed: {error}"
        return ""

    def predict(
        self, name: str, image: np.ndarray, names: Names | None = None, size: tuple[int, int] | None = None
    ) -> Prediction:
        """Predict all tasks.

        Args:
            name: of the file.
            image: BGR ``(H, W, 3)`` uint8.
            names: names for the classes of LV-Adapter's tasks; the trained ones where a task has none here.
            size: width and height of the picture that ``image`` is a smaller copy of; None where it is none.

        Raises:
            MTAdaptError: for names that the adapter does not take.
        """
        with self._lock:
            start = time.perf_counter()
            try:
                renamed = self._set_names(names or {})
                sample = self._inferencer.predict_image(image)
            finally:
                self._set_names({})
            seconds = time.perf_counter() - start
            return Prediction(name, image, size or image.shape[1::-1], _compact(sample), seconds, renamed)

    def _set_names(self, names: Names) -> tuple[str, ...]:
        renamed = []
        for task, trained in self.prompts.items():
            given = [one.strip() for one in names.get(task, trained)]
            assert self._adapter is not None
            self._adapter.set_classes(task, given, self._encoder)
            renamed += [f"{new} for {old}" for old, new in zip(trained, given, strict=True) if old != new]
        return tuple(renamed)

    def draw(self, prediction: Prediction, tasks: Sequence[str], threshold: float, opacity: float) -> np.ndarray:
        """Return the picture with the overlays of these tasks, RGB uint8.

        Args:
            prediction: of :meth:`predict`.
            tasks: what is drawn.
            threshold: boxes below this score are not drawn.
            opacity: of dense classes, from 0 to 1.
        """
        if not tasks:
            return np.ascontiguousarray(prediction.image[..., ::-1])
        with self._lock:
            before = self._inferencer.visualizer.alpha
            self._inferencer.visualizer.alpha = opacity
            try:
                return self._inferencer.draw(prediction.image, prediction.sample, tuple(tasks), threshold)
            finally:
                self._inferencer.visualizer.alpha = before

    def boxes(self, prediction: Prediction, tasks: Sequence[str], threshold: float) -> list[list[Any]]:
        """Task, class, score, left, top, width and height in pixels of the file of every box, best first."""
        rows = []
        factors = _factors(prediction)
        for task in self._chosen(tasks):
            found = boxes_of(prediction.sample.task(task))
            if found is None:
                continue
            for corners, label, score in zip(found.corners, found.labels, found.scores, strict=True):
                if score >= threshold:
                    left, top, right, bottom = (round(float(value), 1) for value in corners * factors)
                    place = [left, top, round(right - left, 1), round(bottom - top, 1)]
                    rows.append([task, self._classes(task)[label], round(float(score), 3), *place])
        return sorted(rows, key=lambda row: -row[2])

    def shares(self, prediction: Prediction, tasks: Sequence[str]) -> list[list[Any]]:
        """Task, class and percentage of the pixels, largest first in each task; of whole images the class and score."""
        rows: list[list[Any]] = []
        for task in self._chosen(tasks):
            native, classes = prediction.sample.task(task), self._classes(task)
            ids, label = map_of(native), label_of(native)
            if ids is not None:
                counts = np.bincount(ids[ids < len(classes)].ravel(), minlength=len(classes))
                order = [number for number in np.argsort(-counts, kind="stable") if counts[number]]
                rows += [[task, classes[one], f"{100 * counts[one] / ids.size:.1f} %"] for one in order]
            if label is not None:
                rows.append([task, classes[label[0]], "" if label[1] is None else f"score {label[1]:.2f}"])
        return rows

    def document(self, prediction: Prediction, tasks: Sequence[str], threshold: float) -> dict[str, Any]:
        """What is shown, in Scalabel and for the file: boxes of at least this score, run lengths of dense classes."""
        stem = prediction.name.rpartition(".")[0] or prediction.name
        frame = Frame(stem, prediction.image, prediction.name, prediction.name)
        metas = {task: self._inferencer.dataset_meta["tasks"][task] for task in self._chosen(tasks)}
        entry = scalabel_frame(frame, _enlarged(prediction), metas)
        entry["labels"] = [label for label in entry["labels"] if label.get("score", 1.0) >= threshold]
        return dict(frames=[entry])

    def _chosen(self, tasks: Sequence[str]) -> list[str]:
        return [task for task in self.tasks if task in tasks]

    def _classes(self, task: str) -> Sequence[str]:
        return self._inferencer.dataset_meta["tasks"][task]["classes"]


def _compact(sample: MultiTaskDataSample) -> MultiTaskDataSample:
    """Keep maps of at most 256 classes in an eighth of the memory: a visitor's last picture stays in the session."""
    for task in sample.tasks:
        predicted = sample.task(task).get("pred_sem_seg")
        if predicted is not None and predicted.data.max() < 256:
            predicted.data = predicted.data.to(torch.uint8)
    return sample


def _factors(prediction: Prediction) -> np.ndarray:
    """What corners ``xyxy`` are multiplied by for the size of the file."""
    height, width = prediction.image.shape[:2]
    return np.tile((prediction.size[0] / width, prediction.size[1] / height), 2)


def _enlarged(prediction: Prediction) -> MultiTaskDataSample:
    """The boxes, maps and classes of the prediction in the size of the file."""
    if prediction.size == prediction.image.shape[1::-1]:
        return prediction.sample
    width, height = prediction.size
    enlarged = MultiTaskDataSample(metainfo=dict(prediction.sample.metainfo, ori_shape=(height, width)))
    for task in prediction.sample.tasks:
        native = prediction.sample.task(task).clone()
        boxes, ids = boxes_of(native), map_of(native)
        if boxes is not None:
            corners = torch.from_numpy(boxes.corners * _factors(prediction))
            native.pred_instances = InstanceData(
                bboxes=corners, labels=torch.from_numpy(boxes.labels), scores=torch.from_numpy(boxes.scores)
            )
        if ids is not None:
            ids = cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
            native.pred_sem_seg = PixelData(data=ids[None])
        enlarged.set_task(task, native)
    return enlarged
