"""Classes of a map that become pixels without a label."""

from __future__ import annotations

import numpy as np
import pytest

from mtadapt.errors import MTAdaptError
from mtadapt.registry import TRANSFORMS


def test_ids_become_the_ignore_index() -> None:
    seg_map = np.array([[0, 11], [3, 12]], np.uint8)
    transform = TRANSFORMS.build(dict(type="IgnoreLabels", labels=[11, 3]))
    result = transform(dict(gt_seg_map=seg_map))["gt_seg_map"]
    assert result.tolist() == [[0, 255], [255, 12]] and result.dtype == np.uint8
    assert seg_map.tolist() == [[0, 11], [3, 12]], "the loaded map stays as it is"
    transform = TRANSFORMS.build(dict(type="IgnoreLabels", labels=[0], ignore_index=11))
    assert transform(dict(gt_seg_map=seg_map))["gt_seg_map"].tolist() == [[11, 11], [3, 12]]


@pytest.mark.parametrize("labels", [[], [-1], [256]])
def test_labels_that_no_map_can_hold(labels: list[int]) -> None:
    with pytest.raises(MTAdaptError, match=r"IgnoreLabels: labels=\[.*\]; write ids from 0 to 255, e.g. labels=\[11\]"):
        TRANSFORMS.build(dict(type="IgnoreLabels", labels=labels))
