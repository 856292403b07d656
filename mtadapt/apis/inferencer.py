"""Predictions of a trained model for images, as MMEngine's inferencers give them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope

from mtadapt.apis.model_loading import open_model
from mtadapt.apis.pipelines import test_pipelines
from mtadapt.datasets.transforms.loading import read_image
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample
from mtadapt.visualization import MultiTaskVisualizer


class MultiTaskInferencer(BaseInferencer):
    """Predict all tasks of a trained model for images."""

    def __init__(
        self,
        model: str | Path | Config | Mapping[str, Any] | None = None,
        weights: str | Path | None = None,
        device: str | None = None,
        scope: str = "mtadapt",
        show_progress: bool = True,
        cfg_options: Mapping[str, Any] | None = None,
    ) -> None:
        self.scope = scope
        self.show_progress = show_progress
        opened = open_model(model, weights, device, cfg_options)
        self.cfg, self.dataset_meta = opened.config, opened.dataset_meta
        self.model: Any = opened.model
        self.checkpoint = opened.checkpoint
        self.tasks: tuple[str, ...] = tuple(self.model.tasks)
        self.pipelines = test_pipelines(self.cfg, self.tasks)
        self.collate_fn = pseudo_collate
        self.visualizer = self._init_visualizer(self.cfg)

    def predict_image(self, image: np.ndarray, tasks: str | Sequence[str] | None = None) -> MultiTaskDataSample:
        """Predict one image.

        Args:
            image: BGR ``(H, W, 3)`` uint8.
            tasks: those to predict; None for all.

        Returns:
            A sample with the native predictions of each task, in the size of ``image``, on the CPU.
        """
        return self.predict_images([image], tasks)[0]

    def predict_images(
        self,
        images: Sequence[np.ndarray],
        tasks: str | Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> list[MultiTaskDataSample]:
        """Predict a batch of images, which may have several sizes; see :meth:`predict_image`.

        Args:
            images: BGR ``(H, W, 3)`` uint8.
            tasks: those to predict; None for all.
            names: of the images, which become the ``img_path`` of the samples.
        """
        chosen = self.chosen_tasks(tasks)
        images = [check_image(image) for image in images]
        names = names or [""] * len(images)
        results = [
            MultiTaskDataSample(metainfo=dict(img_path=name, ori_shape=image.shape[:2], img_shape=image.shape[:2]))
            for image, name in zip(images, names, strict=True)
        ]
        for pipeline in self.pipelines:
            own = [task for task in chosen if task in pipeline.tasks]
            if not own:
                continue
            batch = [pipeline(image, name, own) for image, name in zip(images, names, strict=True)]
            with torch.no_grad(), DefaultScope.overwrite_default_scope(self.scope):
                samples = self.model.test_step(self.collate_fn(batch))
            for result, sample in zip(results, samples, strict=True):
                for task in own:
                    result.set_task(task, sample.task(task).cpu())
        return results

    def draw(
        self,
        image: np.ndarray,
        sample: MultiTaskDataSample,
        tasks: str | Sequence[str] | None = None,
        pred_score_thr: float = 0.3,
    ) -> np.ndarray:
        """Draw the predictions of an image.

        Args:
            image: BGR ``(H, W, 3)`` uint8.
            sample: what :meth:`predict_image` gave for it.
            tasks: those to draw; None for all that the sample has.
            pred_score_thr: boxes below this score are not drawn.

        Returns:
            Picture, RGB uint8.
        """
        chosen = self.chosen_tasks(tasks)
        shown = MultiTaskDataSample(metainfo=dict(sample.metainfo))
        for task in sample.tasks:
            if task in chosen:
                shown.set_task(task, sample.task(task))
        rgb = np.ascontiguousarray(check_image(image)[..., ::-1])
        return self.visualizer.compose(rgb, shown, draw_gt=False, draw_pred=True, score_thr=pred_score_thr)

    def chosen_tasks(self, tasks: str | Sequence[str] | None) -> tuple[str, ...]:
        """The tasks of a call, in the order of the model.

        Raises:
            MTAdaptError: for a task that the model does not have.
        """
        if tasks is None:
            return self.tasks
        wanted = (tasks,) if isinstance(tasks, str) else tuple(tasks)
        unknown = [task for task in wanted if task not in self.tasks]
        if unknown or not wanted:
            raise MTAdaptError(f"tasks={list(wanted)}: the model has {', '.join(self.tasks)}; name some of them")
        return tuple(task for task in self.tasks if task in wanted)

    def _init_pipeline(self, cfg: Config) -> Any:
        return self.pipelines

    def _init_visualizer(self, cfg: Config) -> MultiTaskVisualizer:
        settings = dict(cfg.get("visualizer") or {})
        own = {key: settings[key] for key in ("overlay", "alpha") if key in settings}
        visualizer = MultiTaskVisualizer(name=f"inference-{id(self)}", **own)
        visualizer.dataset_meta = self.dataset_meta
        return visualizer

    def __call__(
        self,
        inputs: Any,
        return_datasamples: bool = False,
        batch_size: int = 1,
        tasks: str | Sequence[str] | None = None,
        return_vis: bool = False,
        pred_score_thr: float = 0.3,
    ) -> dict[str, list]:
        """Predict images and draw them."""
        several = isinstance(inputs, (list, tuple))
        predictions: list[Any] = []
        pictures = []
        for item in inputs if several else [inputs]:
            name = "" if isinstance(item, np.ndarray) else str(item)
            image = item if isinstance(item, np.ndarray) else read_image(name, cv2.IMREAD_COLOR)
            sample = self.predict_images([image], tasks, [name])[0]
            predictions.append(sample)
            if return_vis:
                pictures.append(self.draw(image, sample, tasks, pred_score_thr))
        return dict(predictions=predictions, visualization=pictures)

    def visualize(self, inputs: list, preds: Any, show: bool = False, **kwargs: Any) -> list[np.ndarray]:
        """Draw predictions."""
        return [self.draw(image, sample, **kwargs) for image, sample in zip(inputs, preds, strict=True)]

    def postprocess(
        self, preds: Any, visualization: list[np.ndarray], return_datasample: bool = False, **kwargs: Any
    ) -> dict:
        """Pack the results."""
        return dict(predictions=preds, visualization=visualization)


def check_image(image: np.ndarray) -> np.ndarray:
    """Return the image, a grey one with three channels.

    Raises:
        MTAdaptError: for something else than a uint8 image with one or three channels.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.ndim == 2:
            return np.repeat(image[..., None], 3, axis=2)
        if image.ndim == 3 and image.shape[2] == 3:
            return image
    found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise MTAdaptError(f"image: {found}; give a BGR array (H, W, 3) of uint8")
