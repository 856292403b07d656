"""Shared fixtures: a hand-written folder in BDD100K's layout with everything that is odd in the real one."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope

import mtadapt  # noqa: F401

# As env_cfg.mp_cfg does in every run: OpenCV's threads do not survive the fork of a data loader's workers.
cv2.setNumThreads(0)

WIDTH, HEIGHT = 64, 48


def box(category: str, x1: float, y1: float, x2: float, y2: float) -> dict:
    """A Scalabel label."""
    return dict(id="0", category=category, box2d=dict(x1=x1, y1=y1, x2=x2, y2=y2), attributes=dict(occluded=False))


class Tree:
    """Write images, masks and detection files of a small BDD100K folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def image(self, image_set: str, split: str, stem: str) -> Path:
        path = self.root / "images" / image_set / split / f"{stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(sum(map(ord, stem))).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        assert cv2.imwrite(str(path), pixels)
        return path

    def mask(self, task: str, split: str, stem: str, values: np.ndarray | int) -> Path:
        path = self.root / "labels" / task / "masks" / split / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        seg_map = np.full((HEIGHT, WIDTH), values, np.uint8) if isinstance(values, int) else values
        assert cv2.imwrite(str(path), seg_map)
        return path

    def det(self, split: str, frames: list[dict]) -> Path:
        path = self.root / "labels" / "det_20" / f"det_{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(frames))
        return path


@pytest.fixture
def bdd(tmp_path: Path) -> Tree:
    """A folder with, in train: a and b (det, drivable), b also sem_seg; c drivable alone; d sem_seg alone; v only by
    overlap with val. In val: v (det, drivable) and w (sem_seg).
    """
    tree = Tree(tmp_path / "bdd")
    ramp = np.tile(np.arange(WIDTH, dtype=np.uint8) % 3, (HEIGHT, 1))
    for stem in "abc":
        tree.image("100k", "train", stem)
        tree.mask("drivable", "train", stem, ramp)
    for stem in "bdv":
        tree.image("10k", "train", stem)
        tree.mask("sem_seg", "train", stem, (ramp * 6).astype(np.uint8))
    tree.mask("drivable", "train", "nobody", 2)
    tree.image("100k", "val", "v")
    tree.mask("drivable", "val", "v", ramp)
    tree.image("10k", "val", "w")
    tree.mask("sem_seg", "val", "w", 7)
    tree.det(
        "train",
        [
            dict(
                name="a.jpg",
                attributes=dict(weather="rainy", timeofday="night", scene="highway"),
                labels=[
                    box("person", 2, 4, 11, 23),
                    box("other vehicle", 20, 8, 39, 27),
                    box("traffic light", 0, 0, 0, 0),
                    dict(id="9", category="lane/road curb", poly2d=[]),
                ],
            ),
            dict(name="b.jpg", labels=None),
            dict(name="gone.jpg", labels=[box("car", 1, 1, 2, 2)]),
        ],
    )
    tree.det("val", [dict(name="v.jpg", labels=[box("car", 10, 10, 19, 29), box("other person", 5, 5, 9, 9)])])
    return tree


@pytest.fixture(autouse=True)
def default_scope():
    """Every test runs, as every config does, in the scope ``mtadapt``."""
    DefaultScope.get_instance("test", scope_name="mtadapt")
    with DefaultScope.overwrite_default_scope("mtadapt"):
        yield
