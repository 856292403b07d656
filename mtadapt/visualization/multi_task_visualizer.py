"""One picture with boxes, semantic classes and drivable area, ground truth beside prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.dist import master_only
from mmengine.structures import BaseDataElement, InstanceData
from mmengine.visualization import Visualizer

from mtadapt.registry import VISUALIZERS
from mtadapt.structures import MultiTaskDataSample

Palette = Sequence[Sequence[int]]
_MIN_WIDTH = 640
_STRIP = 28


@VISUALIZERS.register_module()
class MultiTaskVisualizer(Visualizer):
    """Draw all tasks of a sample.

    The upper row shows boxes over the first ``overlay`` task (the drivable area), the lower row the other dense tasks;
    classes of whole images stand in the title. The left column is the ground truth, the right one the prediction, each
    only where it exists. Classes without a palette get colours of ours. Small images are
    enlarged to 640 pixels, so that labels can be read.

    Args:
        overlay: dense task that is drawn under the boxes.
        alpha: opacity of dense classes.
        **kwargs: those of :class:`mmengine.visualization.Visualizer`.
    """

    def __init__(self, name: str = "visualizer", overlay: str = "drivable", alpha: float = 0.5, **kwargs: Any) -> None:
        super().__init__(name, **kwargs)
        self.overlay = overlay
        self.alpha = alpha

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: MultiTaskDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        show: bool = False,
        wait_time: float = 0,
        out_file: str | None = None,
        pred_score_thr: float = 0.3,
        step: int = 0,
    ) -> None:
        """Draw a sample and show it, write it to a file, or add it to the visualizer's backends.

        Args:
            name: title of the picture.
            image: RGB ``(H, W, 3)`` uint8.
            data_sample: ground truth and predictions, in the size of ``image``.
            draw_gt: draw the ground truth where there is one.
            draw_pred: draw the predictions where there are some.
            show: open a window.
            wait_time: seconds before the window closes.
            out_file: file to write instead of the backends.
            pred_score_thr: boxes below this score are not drawn.
            step: step under which the backends store it.
        """
        picture = self.compose(image, data_sample or MultiTaskDataSample(), draw_gt, draw_pred, pred_score_thr)
        self.set_image(picture)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(picture[..., ::-1], out_file)
        else:
            self.add_image(name, picture, step)

    def compose(
        self, image: np.ndarray, sample: MultiTaskDataSample, draw_gt: bool, draw_pred: bool, score_thr: float
    ) -> np.ndarray:
        """Return the picture, RGB uint8; see :meth:`add_datasample`."""
        metas: Mapping[str, dict] = (self.dataset_meta or {}).get("tasks", {})
        scale = max(1.0, _MIN_WIDTH / image.shape[1])
        size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
        canvas = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        columns = []
        for title, wanted, kind in (("ground truth", draw_gt, "gt"), ("prediction", draw_pred, "pred")):
            panels = self._panels(canvas, scale, sample, metas, kind, score_thr) if wanted else []
            if panels:
                columns.append([_with_title(panel, f"{title}: {label}") for label, panel in panels])
        if not columns:
            return canvas
        height = max(len(column) for column in columns)
        blank = np.zeros_like(columns[0][0])
        picture = np.hstack([np.vstack(column + [blank] * (height - len(column))) for column in columns])
        return np.vstack([picture, _legend(self._shown_classes(sample, metas), picture.shape[1])])

    def _panels(
        self,
        canvas: np.ndarray,
        scale: float,
        sample: MultiTaskDataSample,
        metas: Mapping[str, dict],
        kind: str,
        score_thr: float,
    ) -> list[tuple[str, np.ndarray]]:
        map_field, box_field, label_field = f"{kind}_sem_seg", f"{kind}_instances", f"{kind}_label"
        dense = {task: sample.task(task) for task in sample.tasks if map_field in sample.task(task)}
        boxes = {task: sample.task(task) for task in sample.tasks if box_field in sample.task(task)}
        panels = []
        top = canvas
        if self.overlay in dense:
            top = self._blend(top, dense[self.overlay], map_field, metas[self.overlay], hidden="background")
        for task, native in boxes.items():
            top = self._draw_boxes(top, scale, native.get(box_field), metas[task], score_thr)
        if boxes or self.overlay in dense:
            panels.append((", ".join([*boxes, *([self.overlay] if self.overlay in dense else [])]), top))
        for task, native in dense.items():
            if task != self.overlay:
                panels.append((task, self._blend(canvas, native, map_field, metas[task])))
        for task in sample.tasks:
            if label_field in sample.task(task):
                labels = sample.task(task).get(label_field).flatten().tolist()
                panels.append((f"{task} {', '.join(metas[task]['classes'][label] for label in labels)}", canvas))
        return panels

    def _blend(
        self, canvas: np.ndarray, native: BaseDataElement, field: str, meta: dict, hidden: str | None = None
    ) -> np.ndarray:
        ids = native.get(field).data.squeeze(0).cpu().numpy().astype(np.uint8)
        ids = cv2.resize(ids, canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        colours = _palette(meta)
        palette = np.zeros((256, 3), np.uint8)
        palette[: len(colours)] = colours
        drawn = ids < len(colours)
        if hidden in meta["classes"]:
            drawn &= ids != list(meta["classes"]).index(hidden)
        mixed = cv2.addWeighted(canvas, 1 - self.alpha, palette[ids], self.alpha, 0)
        return np.where(drawn[..., None], mixed, canvas)

    def _draw_boxes(
        self, canvas: np.ndarray, scale: float, instances: InstanceData, meta: dict, score_thr: float
    ) -> np.ndarray:
        instances = instances.cpu()
        if "scores" in instances:
            instances = instances[instances.scores >= score_thr]
        if not len(instances):
            return canvas
        bboxes = getattr(instances.bboxes, "tensor", instances.bboxes).numpy() * scale
        bboxes = bboxes.clip(0, np.array(canvas.shape[1::-1] * 2) - 1)
        labels = instances.labels.numpy()
        palette = _palette(meta)
        colours = [tuple(palette[label]) for label in labels]
        scores = instances.scores.numpy() if "scores" in instances else None
        texts = [
            meta["classes"][label] + ("" if scores is None else f" {scores[row]:.2f}")
            for row, label in enumerate(labels)
        ]
        self.set_image(canvas)
        self.draw_bboxes(bboxes, edge_colors=colours, line_widths=2, alpha=0.9)
        self.draw_texts(
            texts,
            bboxes[:, :2],
            font_sizes=max(7, canvas.shape[1] // 110),
            colors=[(255, 255, 255)] * len(texts),
            vertical_alignments="bottom",
            bboxes=[
                dict(facecolor=tuple(c / 255 for c in colour), alpha=0.8, pad=0.6, edgecolor="none")
                for colour in colours
            ],
        )
        return self.get_image()

    def _shown_classes(self, sample: MultiTaskDataSample, metas: Mapping[str, dict]) -> list[tuple[str, Sequence[int]]]:
        """Name and colour of every class of the dense tasks that the picture holds; boxes carry their own names."""
        shown: dict[str, Sequence[int]] = {}
        for task in sample.tasks:
            fields = [sample.task(task).get(field) for field in ("gt_sem_seg", "pred_sem_seg")]
            ids = {int(value) for field in fields if field is not None for value in field.data.unique()}
            for value in sorted(ids):
                if value < len(metas[task]["classes"]) and metas[task]["classes"][value] != "background":
                    shown[metas[task]["classes"][value]] = _palette(metas[task])[value]
        return list(shown.items())


def _palette(meta: Mapping[str, Any]) -> Palette:
    """A colour for every class, the same in every picture."""
    palette: Palette = meta.get("palette") or ()
    if len(palette) < len(meta["classes"]):
        return np.random.default_rng(42).integers(40, 256, (len(meta["classes"]), 3)).tolist()
    return palette


def _with_title(panel: np.ndarray, title: str) -> np.ndarray:
    strip = np.full((_STRIP, panel.shape[1], 3), 32, np.uint8)
    cv2.putText(strip, title, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (255, 255, 255), 1, cv2.LINE_AA)
    return np.vstack([strip, panel])


def _legend(classes: Sequence[tuple[str, Sequence[int]]], width: int) -> np.ndarray:
    """Coloured squares with names, wrapped to the width."""
    font, rows, x = cv2.FONT_HERSHEY_SIMPLEX, [np.full((_STRIP, width, 3), 32, np.uint8)], 8
    for name, colour in classes:
        (text_width, _), _ = cv2.getTextSize(name, font, 0.5, 1)
        if x + text_width + 34 > width:
            rows.append(np.full((_STRIP, width, 3), 32, np.uint8))
            x = 8
        cv2.rectangle(rows[-1], (x, 7), (x + 14, 21), [int(c) for c in colour], -1)
        cv2.putText(rows[-1], name, (x + 20, 19), font, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        x += text_width + 38
    return np.vstack(rows)
