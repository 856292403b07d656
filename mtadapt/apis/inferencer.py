"""Predictions of a trained model for images, as MMEngine's inferencers give them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mtadapt.apis.model_loading import open_model
from mtadapt.apis.outputs import OutputSet, open_outputs, scalabel_frame
from mtadapt.apis.pipelines import test_pipelines
from mtadapt.apis.settings import check_reading, check_threshold
from mtadapt.apis.sources import Frame, FrameReader, check_image, check_names, read_ahead
from mtadapt.apis.window import check_display, show_picture
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample
from mtadapt.visualization import MultiTaskVisualizer


class _Prepared(NamedTuple):
    """A frame, and for each pipeline its tasks and what it packed."""

    frame: Frame
    packed: list[tuple[tuple[str, ...], dict[str, Any]]]


class MultiTaskInferencer(BaseInferencer):
    """Predict the tasks of a trained model for images, folders, videos, cameras, addresses and arrays.

    The images go through the test pipeline of the config; where several sources make the test data, each task has the
    pipeline of the source that labels it. Consecutive images of one size share a batch, so that the predictions for an
    image do not depend on its neighbours.

    Example:
        >>> inferencer = MultiTaskInferencer('configs/mt_synthetic_lv.py', 'work_dirs/mt_synthetic_lv/finetune')
        >>> inferencer('frames/*.jpg', batch_size=4, out_dir='out', formats=('scalabel', 'coco'))
        >>> sample = inferencer.predict_image(image)
        >>> sample.det.pred_instances.bboxes

    Args:
        model: config of the run, or its path; None for the config that the checkpoint carries.
        weights: the checkpoint, or the folder of a run, whose newest whole checkpoint is taken; None for the config's
            ``load_from``.
        device: e.g. ``cpu`` or ``cuda:1``; None for the first GPU where there is one.
        scope: MMEngine's default scope.
        show_progress: draw a progress bar on stderr.
        cfg_options: what is overridden in the config.

    Attributes:
        model: in evaluation mode.
        cfg: the config.
        tasks: names of the tasks.
        dataset_meta: ``tasks``: task to its ``classes`` and ``palette``.
        visualizer: what draws; its ``alpha`` is the opacity of dense classes.
        checkpoint: the file that the weights come from.

    Raises:
        MTAdaptError: when a file is missing or cannot be read safely, the checkpoint is of another config, or the
            device is not there.
    """

    preprocess_kwargs: ClassVar[set[str]] = {
        "tasks", "prefetch", "on_error", "stride", "max_frames", "max_download_mb", "timeout",
    }  # fmt: skip
    forward_kwargs: ClassVar[set[str]] = set()
    visualize_kwargs: ClassVar[set[str]] = {"return_vis", "show", "wait_time", "draw", "pred_score_thr"}
    postprocess_kwargs: ClassVar[set[str]] = {
        "return_predictions", "out_dir", "formats", "submission", "overwrite", "coco_annotations",
    }  # fmt: skip

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
        self.cfg, self.dataset_meta, self.checkpoint = opened.config, opened.dataset_meta, opened.checkpoint
        trained: Any = opened.model
        self.model: Any = trained
        self.tasks: tuple[str, ...] = tuple(trained.tasks)
        self.pipeline = self._init_pipeline(self.cfg)
        self.collate_fn = pseudo_collate
        self.visualizer = self._init_visualizer(self.cfg)

    def __call__(
        self, inputs: Any, return_datasamples: bool = False, batch_size: int = 1, **kwargs: Any
    ) -> dict[str, Any]:
        """Predict inputs, draw the predictions and write them.

        Outputs are written image by image. ``predictions`` and ``visualization`` grow with the number of images, so
        for long videos set ``return_predictions=False``, or use :meth:`stream`.

        Args:
            inputs: path of an image, a video or a folder, a pattern, an address, the number of a camera, a BGR array,
                or a list of any of them; see :func:`~mtadapt.apis.sources.expand_inputs`.
            return_datasamples: give the predictions as :class:`~mtadapt.structures.MultiTaskDataSample` instead of
                entries of Scalabel.
            batch_size: images that pass the model together.
            **kwargs: ``tasks``: those to predict, None for all. ``prefetch``: how many images are read ahead, by
                default two batches. ``on_error``: ``raise`` or ``skip``, for images that cannot be read. ``stride``:
                of videos every so many frames. ``max_frames``: of each video or camera. ``max_download_mb`` and
                ``timeout``: limits for addresses. ``return_vis``: also return the pictures. ``show``: open a window.
                ``wait_time``: seconds that it shows an image, 0 until a key is pressed. ``draw``: store pictures and
                annotated videos in ``out_dir`` (default True). ``pred_score_thr``: boxes below this score are not
                drawn (default 0.3); files hold all boxes. ``return_predictions`` (default True). ``out_dir``,
                ``formats``, ``submission``, ``overwrite``, ``coco_annotations``: see
                :func:`~mtadapt.apis.outputs.open_outputs`.

        Returns:
            ``predictions`` and ``visualization`` (RGB), one entry an image; ``outputs``, the paths that were written;
            ``images`` and ``skipped``, how many were read and how many could not be read.

        Raises:
            MTAdaptError: for an input that cannot be read, outputs that are there already, or an unknown setting.
        """
        for_reader, _, for_drawing, for_results = self._dispatch_kwargs(**kwargs)
        prefetch = for_reader.pop("prefetch", None)
        check_reading(batch_size, prefetch)
        check_threshold(for_drawing.get("pred_score_thr", 0))
        tasks = self.chosen_tasks(for_reader.pop("tasks", None))
        reader = FrameReader(inputs, **for_reader)
        keep = for_results.pop("return_predictions", True)
        if keep and any(entry.live for entry in reader.entries) and reader.max_frames is None:
            raise MTAdaptError("a camera has no end: set return_predictions=False or max_frames")
        if for_drawing.get("show"):
            check_display()
        outputs = self._open_outputs(reader, tasks, for_drawing.pop("draw", True), **for_results)
        results: dict[str, Any] = dict(predictions=[], visualization=[], images=0)
        batches = self.preprocess(reader, batch_size, tasks=tasks, prefetch=prefetch)
        try:
            for batch in self._with_progress(batches, reader):
                frames, samples = [each.frame for each in batch], self.forward(batch)
                wanted = outputs.needs_pictures or for_drawing.get("return_vis", False)
                pictures = self.visualize(frames, samples, wanted=wanted, **for_drawing)
                for row, (frame, sample) in enumerate(zip(frames, samples, strict=True)):
                    outputs.add(frame, sample, pictures[row] if pictures else None)
                if keep:
                    made = self.postprocess(samples, pictures, return_datasamples, frames)
                    results["predictions"] += made["predictions"]
                if for_drawing.get("return_vis"):
                    results["visualization"] += pictures
                results["images"] += len(frames)
        except KeyboardInterrupt:
            # The ordinary way to stop a camera.
            if not reader.live or not results["images"]:
                outputs.abort()
                raise
        except BaseException:
            outputs.abort()
            raise
        if not results["images"]:
            outputs.abort()
            raise MTAdaptError(f"none of the {len(reader.entries)} inputs can be read; see the warnings")
        return dict(results, outputs=outputs.finish(), skipped=reader.skipped)

    def stream(
        self, inputs: Any, batch_size: int = 1, tasks: str | Sequence[str] | None = None, **kwargs: Any
    ) -> Iterator[tuple[Frame, MultiTaskDataSample]]:
        """Yield frames and their predictions, one after the other; nothing is kept.

        Args:
            inputs: as for a call.
            batch_size: images that pass the model together.
            tasks: those to predict; None for all.
            **kwargs: those of a call that concern reading: ``prefetch``, ``on_error``, ``stride``, ...
        """
        for batch in self.preprocess(inputs, batch_size, tasks=tasks, **kwargs):
            yield from zip([each.frame for each in batch], self.forward(batch), strict=True)

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
        self, images: Sequence[np.ndarray], tasks: str | Sequence[str] | None = None
    ) -> list[MultiTaskDataSample]:
        """Predict images; those of one size that follow each other are one batch. See :meth:`predict_image`."""
        batches = self.preprocess(list(images), max(len(images), 1), tasks=tasks, prefetch=0) if len(images) else ()
        return [sample for batch in batches for sample in self.forward(batch)]

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
        check_threshold(pred_score_thr)
        return self._picture(image, sample, self.chosen_tasks(tasks), pred_score_thr, fixed_legend=False)

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

    def preprocess(
        self,
        inputs: Any,
        batch_size: int = 1,
        tasks: str | Sequence[str] | None = None,
        prefetch: int | None = None,
        **kwargs: Any,
    ) -> Iterator[list[_Prepared]]:
        """Read images and prepare them for the model, in a thread.

        Args:
            inputs: as for a call, or a :class:`~mtadapt.apis.sources.FrameReader`.
            batch_size: the most images of a batch.
            tasks: those to predict; None for all.
            prefetch: how many images are read ahead; 0 for no thread, None for two batches.
            **kwargs: of the reader.

        Yields:
            Batches, whose images have one size.
        """
        check_reading(batch_size, prefetch)
        chosen = self.chosen_tasks(tasks)
        reader = inputs if isinstance(inputs, FrameReader) else FrameReader(inputs, **kwargs)
        size = 2 * batch_size if prefetch is None else prefetch
        batch: list[_Prepared] = []
        for each in read_ahead((self._prepare(frame, chosen) for frame in reader), size):
            if batch and (len(batch) == batch_size or batch[0].frame.image.shape != each.frame.image.shape):
                yield batch
                batch = []
            batch.append(each)
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    @torch.no_grad()
    def forward(self, inputs: Sequence[_Prepared], **kwargs: Any) -> list[MultiTaskDataSample]:
        """Predict a batch of :meth:`preprocess`.

        Returns:
            New samples on the CPU, in the size of the images, with the tasks that were chosen.
        """
        results = []
        for prepared in inputs:
            size = prepared.frame.image.shape[:2]
            meta = dict(img_path=prepared.frame.source, ori_shape=size, img_shape=size, scale_factor=(1.0, 1.0))
            results.append(MultiTaskDataSample(metainfo=meta))
        for number in range(len(inputs[0].packed)):
            tasks = inputs[0].packed[number][0]
            batch = self.collate_fn([prepared.packed[number][1] for prepared in inputs])
            with DefaultScope.overwrite_default_scope(self.scope):
                samples = self.model.test_step(batch)
            for result, sample in zip(results, samples, strict=True):
                for task in tasks:
                    result.set_task(task, sample.task(task).cpu())
        return results

    def visualize(
        self,
        inputs: Sequence[Frame],
        preds: Sequence[MultiTaskDataSample],
        show: bool = False,
        wait_time: float = 0,
        return_vis: bool = True,
        wanted: bool = True,
        pred_score_thr: float = 0.3,
    ) -> list[np.ndarray]:
        """Draw and show predictions.

        Args:
            inputs: the frames.
            preds: their predictions.
            show: open a window.
            wait_time: seconds that it shows an image, 0 until a key is pressed.
            return_vis: that of a call.
            wanted: draw although nothing is shown.
            pred_score_thr: boxes below this score are not drawn.

        Returns:
            Pictures, RGB; nothing where none is wanted.
        """
        if not (show or wanted):
            return []
        pictures = [
            self._picture(frame.image, sample, sample.tasks, pred_score_thr, fixed_legend=frame.video is not None)
            for frame, sample in zip(inputs, preds, strict=True)
        ]
        if show:
            for frame, picture in zip(inputs, pictures, strict=True):
                show_picture(picture, frame, wait_time)
        return pictures

    def postprocess(
        self,
        preds: Sequence[MultiTaskDataSample],
        visualization: Sequence[np.ndarray],
        return_datasample: bool = False,
        frames: Sequence[Frame] = (),
    ) -> dict[str, list]:
        """Give predictions in the form that a call returns.

        Args:
            preds: of a batch.
            visualization: their pictures.
            return_datasample: leave them samples instead of making entries of Scalabel.
            frames: the images.
        """
        predictions: list[Any] = list(preds)
        if not return_datasample:
            metas = self.dataset_meta["tasks"]
            predictions = [scalabel_frame(frame, sample, metas) for frame, sample in zip(frames, preds, strict=True)]
        return dict(predictions=predictions, visualization=list(visualization))

    def _prepare(self, frame: Frame, chosen: Sequence[str]) -> _Prepared:
        packed = []
        for pipeline in self.pipeline:
            own = tuple(task for task in chosen if task in pipeline.tasks)
            if own:
                packed.append((own, pipeline(frame.image, frame.source, own)))
        return _Prepared(frame, packed)

    def _picture(
        self,
        image: np.ndarray,
        sample: MultiTaskDataSample,
        tasks: Iterable[str],
        pred_score_thr: float,
        fixed_legend: bool,
    ) -> np.ndarray:
        rgb = np.ascontiguousarray(check_image(image)[..., ::-1])
        return self.visualizer.compose(
            rgb, sample, False, True, pred_score_thr, tasks=tuple(tasks), fixed_legend=fixed_legend
        )

    def _open_outputs(
        self, reader: FrameReader, tasks: Sequence[str], draw: bool, out_dir: str | Path | None = None, **settings: Any
    ) -> OutputSet:
        if not out_dir:
            given = [name for name, value in settings.items() if value]
            if given:
                raise MTAdaptError(f"{given[0]}={settings[given[0]]!r}: writes files; set out_dir")
            return OutputSet([])
        check_names(reader.entries, flat=bool(settings.get("submission")))
        metas = {task: self.dataset_meta["tasks"][task] for task in tasks}
        return open_outputs(out_dir, metas, draw=draw, **settings)

    def _with_progress(self, batches: Iterator[list[_Prepared]], reader: FrameReader) -> Iterator[list[_Prepared]]:
        if not self.show_progress:
            yield from batches
            return
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images"),
            TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=Console(stderr=True)) as progress:
            bar = progress.add_task("Inference", total=reader.total())
            for batch in batches:
                yield batch
                progress.advance(bar, len(batch))

    def _init_pipeline(self, cfg: Config) -> Any:
        return test_pipelines(cfg, self.tasks)

    def _init_visualizer(self, cfg: Config) -> MultiTaskVisualizer:
        settings = dict(cfg.get("visualizer") or {})
        own = {key: settings[key] for key in ("overlay", "alpha") if key in settings}
        visualizer = MultiTaskVisualizer(name=f"inference-{id(self)}", **own)
        visualizer.dataset_meta = self.dataset_meta
        return visualizer
