"""One picture with boxes, semantic classes and drivable area, ground truth beside prediction."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import cv2
import mmcv
import numpy as np
from mmengine.dist import master_only
from mmengine.structures import BaseDataElement, InstanceData
from mmengine.visualization import Visualizer

from mtadapt.registry import VISUALIZERS
from mtadapt.structures import MultiTaskDataSample
from mtadapt.visualization.boxes import draw_boxes
from mtadapt.visualization.legend import legend, widened, with_title
from mtadapt.visualization.text import Colour

Palette = Sequence[Sequence[int]]
#: Smaller images are enlarged to this width, unless they become higher than the other number; then the rest is dark.
_MIN_WIDTH, _MAX_HEIGHT = 640, 1280
#: Panels up to this width have strips and letters of one size; those of wider ones grow with them.
_WIDTH_OF_A_UNIT = 1280


@VISUALIZERS.register_module()
class MultiTaskVisualizer(Visualizer):
    """Draw all tasks of a sample.

    The upper row shows boxes over the first ``overlay`` task (the drivable area), the lower row the other dense tasks;
    classes of whole images stand in the title. The left column is the ground truth, the right one the prediction, each
    only where it exists. Classes without a palette get colours of ours. Small images are enlarged to 640 pixels, and
    tall ones get a dark margin on their right, so that labels can be read.

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
        tasks: Sequence[str] | None = None,
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
            tasks: those to draw; None for all that the sample has.
        """
        picture = self.compose(image, data_sample or MultiTaskDataSample(), draw_gt, draw_pred, pred_score_thr, tasks)
        self.set_image(picture)
        if show:
            self.show(picture, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(picture[..., ::-1], out_file)
        else:
            self.add_image(name, picture, step)

    def compose(
        self,
        image: np.ndarray,
        sample: MultiTaskDataSample,
        draw_gt: bool,
        draw_pred: bool,
        score_thr: float,
        tasks: Sequence[str] | None = None,
        fixed_legend: bool = False,
    ) -> np.ndarray:
        """Return the picture, RGB uint8; see :meth:`add_datasample`.

        Args:
            image: RGB ``(H, W, 3)`` uint8.
            sample: ground truth and predictions, in the size of ``image``.
            draw_gt: draw the ground truth where there is one.
            draw_pred: draw the predictions where there are some.
            score_thr: boxes below this score are not drawn.
            tasks: those to draw; None for all that the sample has.
            fixed_legend: name all classes of the tasks instead of those in the picture, so that the pictures of a
                video have one size.
        """
        metas: Mapping[str, dict] = (self.dataset_meta or {}).get("tasks", {})
        drawn = {name: sample.task(name) for name in sample.tasks if tasks is None or name in tasks}
        height, width = image.shape[:2]
        scale = max(1.0, min(_MIN_WIDTH / width, _MAX_HEIGHT / height))
        size = (round(width * scale), round(height * scale))
        canvas = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        unit = max(1.0, size[0] / _WIDTH_OF_A_UNIT)
        columns = {}
        for kind, wanted in (("gt", draw_gt), ("pred", draw_pred)):
            panels = self._panels(canvas, scale, drawn, metas, kind, score_thr) if wanted else []
            if panels:
                columns[kind] = panels
        if not columns:
            return canvas
        blank = np.zeros_like(with_title(widened(canvas, _MIN_WIDTH), "", unit))
        rows = max(len(panels) for panels in columns.values())
        parts = []
        for kind, panels in columns.items():
            # There is nothing to tell a prediction from where it stands alone.
            prefix = "ground truth: " if kind == "gt" else "prediction: " if len(columns) > 1 else ""
            titled = [with_title(widened(panel, _MIN_WIDTH), prefix + label, unit) for label, panel in panels]
            parts.append(np.vstack(titled + [blank] * (rows - len(titled))))
        picture = np.hstack(parts)
        shown = self._classes(drawn, metas, None if fixed_legend else columns.keys(), score_thr)
        return np.vstack([picture, legend(shown, picture.shape[1], unit)])

    def _panels(
        self,
        canvas: np.ndarray,
        scale: float,
        drawn: Mapping[str, BaseDataElement],
        metas: Mapping[str, dict],
        kind: str,
        score_thr: float,
    ) -> list[tuple[str, np.ndarray]]:
        """Titles and panels of the ground truth or of the predictions."""
        maps = {name: native for name, native in drawn.items() if f"{kind}_sem_seg" in native}
        boxes = {name: native for name, native in drawn.items() if f"{kind}_instances" in native}
        panels = []
        top = canvas
        if self.overlay in maps:
            meta = metas[self.overlay]
            top = self._blend(top, maps[self.overlay].get(f"{kind}_sem_seg"), meta, hidden="background")
        if boxes:
            # Labels may stand on the margin of a tall image.
            top = widened(top, _MIN_WIDTH)
        for name, native in boxes.items():
            instances = _above(native.get(f"{kind}_instances"), score_thr)
            top = self._draw_boxes(top, canvas.shape[1], scale, instances, metas[name])
        if boxes or self.overlay in maps:
            panels.append((", ".join([*boxes, *([self.overlay] if self.overlay in maps else [])]), top))
        for name, native in maps.items():
            if name != self.overlay:
                panels.append((name, self._blend(canvas, native.get(f"{kind}_sem_seg"), metas[name])))
        labels = [_label_text(name, native, metas[name], kind) for name, native in drawn.items()]
        words = ", ".join(text for text in labels if text)
        if words:
            title, panel = panels[0] if panels else ("", canvas)
            panels[:1] = [(f"{words}; {title}" if title else words, panel)]
        return panels

    def _blend(self, canvas: np.ndarray, field: Any, meta: dict, hidden: str | None = None) -> np.ndarray:
        """Mix the colours of a map into an image; ids without a class, such as 255, and the hidden class stay clear."""
        ids = field.data.squeeze(0).cpu().numpy().astype(np.uint16)
        ids = cv2.resize(ids, canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        colours = np.array(_palette(meta), np.uint8)
        clear = ids >= len(colours)
        if hidden in meta["classes"]:
            clear |= ids == list(meta["classes"]).index(hidden)
        painted = _painted(np.where(clear, np.uint16(0), ids), colours)
        mixed = cv2.addWeighted(canvas, 1 - self.alpha, painted, self.alpha, 0)
        cv2.copyTo(canvas, clear.astype(np.uint8), mixed)
        return mixed

    def _draw_boxes(
        self, canvas: np.ndarray, width: int, scale: float, instances: InstanceData, meta: dict
    ) -> np.ndarray:
        """Draw objects on an image that takes ``width`` pixels of the canvas."""
        if not len(instances):
            return canvas
        corners = getattr(instances.bboxes, "tensor", instances.bboxes).numpy() * scale
        limits = (width - 1, canvas.shape[0] - 1)
        palette, labels = _palette(meta), instances.labels.tolist()
        texts = [meta["classes"][label] for label in labels]
        if "scores" in instances:
            texts = [f"{text} {score:.2f}" for text, score in zip(texts, instances.scores.tolist(), strict=True)]
        canvas = canvas.copy()
        if "masks" in instances:
            self._draw_masks(canvas[:, :width], instances.masks, [palette[label] for label in labels])
        draw_boxes(canvas, corners.clip(0, limits * 2), texts, [palette[label] for label in labels])
        return canvas

    def _draw_masks(self, canvas: np.ndarray, masks: Any, colours: Sequence[Colour]) -> None:
        """Mix the masks of objects ``(n, H, W)`` into an image."""
        masks = np.asarray(getattr(masks, "masks", masks), np.uint8)
        for mask, colour in zip(masks, colours, strict=True):
            inside = cv2.resize(mask, canvas.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
            canvas[inside] = canvas[inside] * (1 - self.alpha) + np.array(colour) * self.alpha

    def _classes(
        self,
        drawn: Mapping[str, BaseDataElement],
        metas: Mapping[str, dict],
        kinds: Collection[str] | None,
        score_thr: float,
    ) -> dict[str, list[tuple[str, Colour]]]:
        """Task to names and colours of the classes that ``kinds`` show, or with None of all classes."""
        shown = {}
        for name, native in drawn.items():
            coloured = [field for field in native.keys() if field.endswith(("_sem_seg", "_instances"))]  # noqa: SIM118
            if not coloured:
                continue
            ids = set(range(len(metas[name]["classes"]))) if kinds is None else set()
            for kind in kinds or ():
                if f"{kind}_sem_seg" in native:
                    counts = np.bincount(native.get(f"{kind}_sem_seg").data.cpu().numpy().ravel())
                    ids |= set(np.flatnonzero(counts).tolist())
                elif f"{kind}_instances" in native:
                    ids |= set(_above(native.get(f"{kind}_instances"), score_thr).labels.tolist())
            names, palette = metas[name]["classes"], _palette(metas[name])
            hidden = "background" if name == self.overlay else None
            shown[name] = [
                (names[label], palette[label]) for label in sorted(ids) if label < len(names) and names[label] != hidden
            ]
        return shown


def _above(instances: InstanceData, score_thr: float) -> InstanceData:
    """Instances from a score on, the best first; those of the ground truth have none and stay as they are."""
    instances = instances.cpu()
    if "scores" not in instances:
        return instances
    instances = instances[instances.scores >= score_thr]
    return instances[instances.scores.argsort(descending=True, stable=True)]


def _painted(ids: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """The colours ``(H, W, 3)`` of the ids of a map."""
    if len(colours) > 256:
        return colours[ids]
    table = np.zeros((256, 1, 3), np.uint8)
    table[: len(colours), 0] = colours
    # A fifth of the time that indexing takes.
    return cv2.applyColorMap(ids.astype(np.uint8), table)


def _label_text(name: str, native: BaseDataElement, meta: Mapping[str, Any], kind: str) -> str:
    """Task and classes of a whole image, with the score of a prediction; empty where there is none."""
    if f"{kind}_label" not in native:
        return ""
    labels = native.get(f"{kind}_label").flatten().tolist()
    scores = native.get("pred_score") if kind == "pred" else None
    texts = [
        meta["classes"][label] + ("" if scores is None else f" {float(scores.flatten()[label]):.2f}")
        for label in labels
    ]
    return f"{name} {', '.join(texts)}"


@lru_cache(maxsize=64)
def _random_palette(number: int) -> Palette:
    return np.random.default_rng(42).integers(40, 256, (number, 3)).tolist()


def _palette(meta: Mapping[str, Any]) -> Palette:
    """A colour for every class, the same in every picture."""
    palette: Palette = meta.get("palette") or ()
    return _random_palette(len(meta["classes"])) if len(palette) < len(meta["classes"]) else palette
