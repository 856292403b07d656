"""What a pre-training sees of an image: its views, the hidden patches, its labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from mtadapt.models.pretraining.masking import pixel_mask
from mtadapt.structures import MultiTaskDataSample
from mtadapt.visualization.panels import PanelRow, draw_panels

_TITLES = ("base view", "key view")
_GREY = 128


def draw_views(views: Tensor, sample: MultiTaskDataSample, classes: Sequence[str]) -> np.ndarray:
    """Draw the views of an image beside each other, the masked base view behind them, the labels below.

    Args:
        views: BGR uint8 ``(V, 3, H, W)``, as pipelines pack them.
        sample: with labels ``mlc.gt_score`` and ``mask``, where it has them.
        classes: names of the labels.

    Returns:
        Picture, RGB ``(H, W, 3)`` uint8.
    """
    panels = [view.flip(0).permute(1, 2, 0).numpy() for view in views]
    titles = [*_TITLES[: len(panels)]]
    if "mask" in sample:
        hidden = pixel_mask(sample.mask[None], views.shape[-2:])[0].permute(1, 2, 0).numpy()
        panels.append(np.where(hidden, np.uint8(_GREY), panels[0]))
        titles.append("masked")
    caption = Path(str(sample.get("img_path", ""))).name
    if "mlc" in sample:
        scores = sample.mlc.gt_score.tolist()
        present = [name for name, score in zip(classes, scores, strict=True) if score == 1]
        caption += f": {', '.join(present) or 'no label'} ({scores.count(-1)} unknown)"
    return draw_panels([PanelRow(tuple(panels), caption)], titles)
