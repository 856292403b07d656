"""Normalise and pad images and maps on the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import ImgDataPreprocessor
from mmengine.structures import PixelData

from mtadapt.errors import MTAdaptError
from mtadapt.models.image_groups import check_merge_sources, group_rows
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample


@MODELS.register_module()
class MultiTaskDataPreprocessor(ImgDataPreprocessor):
    """Turn a list of uint8 images of several sizes into one batch, with the labels of all tasks.

    Images are moved to the device as uint8, then normalised and padded at the right and the bottom. In training the
    maps are padded alike and become int64. The metainfo gets ``batch_input_shape`` (the padded batch) and ``pad_shape``
    (the image rounded up to the divisor, mmdet's convention); every task's native sample receives its own library's
    form of them from :func:`mtadapt.models.tasks.native_samples`.

    A batch with several sources, of a :class:`~mtadapt.datasets.HeterogeneousDataset`, becomes one batch of images a
    source, each padded to its own size; the model passes one after the other through the backbone. ``merge_sources``
    puts sources whose images are of one size together. Ours; it is a setting because the sizes at hand may differ
    between processes, which all have to run the same passes.

    Args:
        seg_pad_value: value of the padded part of maps, the ignore index.
        merge_sources: lists of sources that make one batch of images; ``'all'`` for all of them.
        **kwargs: those of :class:`mmengine.model.ImgDataPreprocessor`: ``mean``, ``std``, ``bgr_to_rgb``,
            ``pad_size_divisor``, ``pad_value``.
    """

    def __init__(
        self, seg_pad_value: int = 255, merge_sources: str | Sequence[Sequence[str]] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        check_merge_sources(merge_sources)
        self.seg_pad_value = seg_pad_value
        self.merge_sources = merge_sources

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data: ``inputs``, images ``(3, H, W)``, and ``data_samples`` or None.
            training: whether maps are padded.

        Returns:
            ``inputs`` ``(N, 3, H, W)`` float32, or a list of them with several sources, and ``data_samples``, which
            in training are in the order of that list.
        """
        sources = [sample.get("source") for sample in data.get("data_samples") or ()]
        if len(set(sources)) < 2 or None in sources:
            return self._one_batch(data, training)
        groups = group_rows(sources, self.merge_sources, keep_order=not training)
        batches = [
            self._one_batch({key: [data[key][row] for row in rows] for key in data}, training) for rows in groups
        ]
        inputs = [batch["inputs"] for batch in batches]
        samples = [sample for batch in batches for sample in batch["data_samples"]]
        return dict(inputs=inputs if len(inputs) > 1 else inputs[0], data_samples=samples)

    def _one_batch(self, data: dict, training: bool) -> dict:
        sizes = [tuple(image.shape[-2:]) for image in data["inputs"]]
        data = super().forward(data, training)
        samples = data["data_samples"]
        if samples is None:
            samples = data["data_samples"] = [MultiTaskDataSample() for _ in sizes]
        batch_shape = tuple(data["inputs"].shape[-2:])
        for sample, size in zip(samples, sizes, strict=True):
            meta: dict = dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0))
            meta.update({key: sample.metainfo[key] for key in meta if key in sample.metainfo})
            pad_shape = tuple(math.ceil(side / self.pad_size_divisor) * self.pad_size_divisor for side in size)
            sample.set_metainfo(dict(**meta, batch_input_shape=batch_shape, pad_shape=pad_shape))
            self._prepare_labels(sample, batch_shape, training)
        return data

    def _prepare_labels(self, sample: MultiTaskDataSample, batch_shape: tuple[int, int], training: bool) -> None:
        for task in sample.tasks:
            native = sample.task(task)
            for instances in (native.get("gt_instances"), native.get("ignored_instances")):
                if instances is not None and "bboxes" in instances:
                    # The box types of the pipeline are plain tensors from here on.
                    instances.bboxes = getattr(instances.bboxes, "tensor", instances.bboxes)
            if training and "gt_sem_seg" in native:
                native.gt_sem_seg = self._pad_map(native.gt_sem_seg.data, sample, task, batch_shape)

    def _pad_map(
        self, seg_map: torch.Tensor, sample: MultiTaskDataSample, task: str, batch_shape: tuple[int, int]
    ) -> PixelData:
        if tuple(seg_map.shape[-2:]) != tuple(sample.img_shape):
            raise MTAdaptError(
                f"{sample.get('img_path')}: the {task} map is {tuple(seg_map.shape[-2:])} and the image "
                f"{sample.img_shape} (height, width); in training load annotations before the geometric transforms"
            )
        padding = (0, batch_shape[1] - seg_map.shape[-1], 0, batch_shape[0] - seg_map.shape[-2])
        return PixelData(data=F.pad(seg_map, padding, value=self.seg_pad_value).long())
