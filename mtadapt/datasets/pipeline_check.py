"""Refuse pipelines that would move some labels of an image and leave others behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mtadapt.errors import MTAdaptError

#: mmdet's transforms that move an image and its boxes and leave ``gt_seg_map`` behind.
_LEAVE_MAPS = (
    "RandomAffine",
    "RandomShift",
    "Mosaic",
    "MixUp",
    "CachedMosaic",
    "CachedMixUp",
    "Expand",
    "MinIoURandomCrop",
)
#: Transforms whose mmdet version moves boxes and maps, while those of mmcv and mmseg do not know mmdet's boxes.
_IN_MMDET = ("Resize", "RandomFlip", "RandomCrop")
#: mmseg's transforms that do not know boxes and have no version in mmdet that moves both.
_LEAVE_BOXES = ("RandomRotate", "RandomRotFlip", "RandomMosaic", "ResizeToMultiple", "ResizeShortestEdge", "Rerange")


def check_pipeline(pipeline: Sequence[Any]) -> None:
    """Check the transforms of a pipeline for images with boxes and maps.

    Args:
        pipeline: transform configs; built transforms are not checked.

    Raises:
        MTAdaptError: for a transform that moves boxes and not maps, or does not know mmdet's boxes.
    """
    for transform in pipeline:
        kind = transform.get("type") if isinstance(transform, dict) else None
        if not isinstance(kind, str):
            continue
        library, _, name = kind.rpartition(".")
        if name in _LEAVE_MAPS:
            raise MTAdaptError(f"pipeline: {kind} moves the image and the boxes, but not the maps; leave it out")
        if name in _LEAVE_BOXES:
            raise MTAdaptError(f"pipeline: {kind} does not move boxes; leave it out")
        if (
            name in _IN_MMDET
            and library not in ("mmdet", "mtadapt")
            and not (library == "mmseg" and name == "RandomCrop")
        ):
            raise MTAdaptError(f"pipeline: {kind} does not move boxes and maps together; write mmdet.{name}")
        nested = transform.get("resize_type")
        if nested is not None and nested != "mmdet.Resize":
            raise MTAdaptError(f"pipeline: {kind} with resize_type={nested!r}; write resize_type='mmdet.Resize'")
        if name in ("RandomResize", "RandomChoiceResize") and nested is None and library != "mmdet":
            raise MTAdaptError(f"pipeline: {kind} needs resize_type='mmdet.Resize' to move boxes and maps together")
