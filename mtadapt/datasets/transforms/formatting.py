"""Pack what a pipeline yields into the model's input and a multi-task sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmengine.structures import BaseDataElement, PixelData

from mtadapt.errors import MTAdaptError
from mtadapt.registry import TRANSFORMS
from mtadapt.structures import MultiTaskDataSample

#: What a task's labels are, by the task's name.
DEFAULT_KINDS = dict(det="boxes", sem_seg="map", drivable="map", cls="label")

META_KEYS = ("img_id", "img_path", "sample_idx", "ori_shape", "img_shape", "scale_factor", "flip", "flip_direction")


@TRANSFORMS.register_module()
class PackMultiTaskInputs(BaseTransform):
    """Pack the image and the labels of every labelled task.

    The image stays uint8: the data preprocessor converts and normalises it on the device, and turns maps into int64
    there.

    Args:
        kinds: task name to what its labels are: ``boxes`` (an mmdet ``DetDataSample``), ``map`` (an mmseg
            ``SegDataSample``) or ``label`` (an mmpretrain ``DataSample``). ``det``, ``sem_seg``, ``drivable`` and
            ``cls`` are known.
        meta_keys: keys that are copied into the metainfo where they exist.

    Returns:
        ``inputs`` uint8 ``(3, H, W)`` and ``data_samples``, a :class:`~mtadapt.structures.MultiTaskDataSample`.
    """

    def __init__(self, kinds: Mapping[str, str] | None = None, meta_keys: tuple[str, ...] = META_KEYS) -> None:
        self.kinds = {**DEFAULT_KINDS, **(kinds or {})}
        self.meta_keys = tuple(meta_keys)
        packers = dict(boxes=self._pack_boxes, map=self._pack_map, label=self._pack_label)
        unknown = {task: kind for task, kind in self.kinds.items() if kind not in packers}
        if unknown:
            raise MTAdaptError(f"PackMultiTaskInputs: unknown kinds {unknown}; known: {', '.join(packers)}")
        self._packers = packers

    def transform(self, results: dict) -> dict:
        """Return ``dict(inputs=..., data_samples=...)``."""
        meta = {key: results[key] for key in self.meta_keys if key in results}
        sample = MultiTaskDataSample(metainfo=dict(**meta, labelled_tasks=tuple(results.get("labelled_tasks", ()))))
        for task in sample.labelled_tasks:
            if task not in self.kinds:
                raise MTAdaptError(f"PackMultiTaskInputs: no kind for task {task!r}; add kinds=dict({task}='map')")
            native = self._packers[self.kinds[task]](results, task)
            native.set_metainfo(meta)
            sample.set_task(task, native)
        image = np.ascontiguousarray(results["img"].transpose(2, 0, 1))
        return dict(inputs=torch.from_numpy(image), data_samples=sample)

    def _pack_boxes(self, results: dict, task: str) -> BaseDataElement:
        from mmdet.datasets.transforms import PackDetInputs

        keys = ("gt_bboxes", "gt_bboxes_labels", "gt_ignore_flags", "gt_masks", "instances")
        if "gt_bboxes" not in results:
            raise MTAdaptError(f"{results.get('img_path')}: task {task!r} has no boxes; add LoadMultiTaskAnnotations")
        packed = PackDetInputs(meta_keys=("instances",)).transform(
            {key: results[key] for key in keys if key in results}
        )
        return packed["data_samples"]

    def _pack_map(self, results: dict, task: str) -> BaseDataElement:
        from mmseg.structures import SegDataSample

        tasks = results.get("seg_map_tasks", ())
        if task not in tasks:
            raise MTAdaptError(f"{results.get('img_path')}: task {task!r} has no map; add LoadMultiTaskAnnotations")
        seg_map = results["gt_seg_map"]
        if seg_map.ndim == 3:
            seg_map = seg_map[..., tasks.index(task)]
        data = torch.from_numpy(np.ascontiguousarray(seg_map))[None]
        return SegDataSample(gt_sem_seg=PixelData(data=data))

    def _pack_label(self, results: dict, task: str) -> BaseDataElement:
        from mmpretrain.structures import DataSample

        if "gt_label" not in results:
            raise MTAdaptError(f"{results.get('img_path')}: task {task!r} has no gt_label")
        return DataSample().set_gt_label(results["gt_label"])
