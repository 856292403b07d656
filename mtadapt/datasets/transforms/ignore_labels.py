"""Turn classes of a dense map into pixels that are ignored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform

from mtadapt.errors import MTAdaptError
from mtadapt.registry import TRANSFORMS


@TRANSFORMS.register_module()
class IgnoreLabels(BaseTransform):
    """Set the pixels of some ids to the ignore index, for datasets that give their void class an id of its own.

    Use it behind the loading of the map, e.g. ``dict(type='mtadapt.IgnoreLabels', labels=[11])`` in a pipeline of mmseg
    for CamVid, whose twelfth class is void.

    Args:
        labels: ids in ``gt_seg_map``.
        ignore_index: what they become.
    """

    def __init__(self, labels: Sequence[int], ignore_index: int = 255) -> None:
        wrong = [label for label in labels if not 0 <= label <= 255]
        if wrong or not labels:
            raise MTAdaptError(f"IgnoreLabels: labels={list(labels)}; write ids from 0 to 255, e.g. labels=[11]")
        self.labels = tuple(labels)
        self.ignore_index = ignore_index

    def transform(self, results: dict) -> dict:
        """Change ``gt_seg_map`` ``(H, W)``."""
        seg_map = results["gt_seg_map"]
        results["gt_seg_map"] = np.where(np.isin(seg_map, self.labels), self.ignore_index, seg_map).astype(
            seg_map.dtype
        )
        return results
