"""Refuse pipelines that would move an image and leave some of its labels behind."""

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
_LEAVE_BOXES = ("RandomRotate", "RandomRotFlip", "RandomMosaic", "ResizeToMultiple", "ResizeShortestEdge")


def check_pipeline(pipeline: Sequence[Any], boxes: bool, maps: bool) -> None:
    """Check the geometric transforms of a pipeline.

    Args:
        pipeline: transform configs; built transforms are not checked.
        boxes: whether the images have boxes.
        maps: whether the images have dense maps.

    Raises:
        MTAdaptError: for a transform that leaves maps behind, or does not know mmdet's boxes.
    """
    for transform in pipeline:
        kind = transform.get("type") if isinstance(transform, dict) else None
        if not isinstance(kind, str):
            continue
        library, _, name = kind.rpartition(".")
        if maps and name in _LEAVE_MAPS:
            raise MTAdaptError(f"pipeline: {kind} moves the image, but not the maps; leave it out")
        if not boxes:
            continue
        if name in _LEAVE_BOXES:
            raise MTAdaptError(f"pipeline: {kind} does not move boxes; leave it out")
        if name in _IN_MMDET and library != "mmdet":
            raise MTAdaptError(f"pipeline: {kind} does not move mmdet's boxes; write mmdet.{name}")
        nested = transform.get("resize_type", "none")
        if name in ("RandomResize", "RandomChoiceResize") and library != "mmdet" and nested != "mmdet.Resize":
            raise MTAdaptError(f"pipeline: {kind} with resize_type={nested!r}; write resize_type='mmdet.Resize'")
