"""Trees, conifers and hedges."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mtadapt.datasets.synthetic.pen import Pen
from mtadapt.datasets.synthetic.solid import Pose
from mtadapt.datasets.synthetic.thing import Thing

BARK = np.array([58.0, 76, 92])
LEAVES = np.array([[48, 96, 62], [40, 84, 66], [60, 116, 84], [46, 78, 50], [50, 110, 120], [40, 96, 150]], float)
CORNERS = 10


class Plant(Thing):
    """A plant made of tufts of leaves on an optional trunk.

    Args:
        rng: Source of its looks.
        pose: Where it grows.
        form: ``'tree'``, ``'conifer'`` or ``'hedge'``.
        snow: There is snow on it.
        length: Of a hedge, in metres.
    """

    def __init__(
        self, rng: np.random.Generator, pose: Pose, form: str = "tree", snow: bool = False, length: float = 4.0
    ) -> None:
        height = {"tree": rng.uniform(4.5, 9.5), "conifer": rng.uniform(5, 10), "hedge": rng.uniform(0.7, 1.7)}[form]
        width = {"tree": height * 0.55, "conifer": height * 0.38, "hedge": 1.2}[form]
        size = (0.5 if form != "hedge" else 1.2, float(height), 0.5 if form != "hedge" else length)
        super().__init__(pose, size, ("vegetation",))
        self.form = form
        self.crown = self.spread = float(width)
        count = {"tree": 22, "conifer": 16, "hedge": int(3 * length) + 2}[form]
        self.places, self.radii, up = self._tufts(rng, count, length)
        leaf = LEAVES[rng.choice(len(LEAVES), p=[0.26, 0.24, 0.22, 0.18, 0.06, 0.04])] * rng.uniform(0.8, 1.15)
        shade = (0.62 + 0.5 * up) * rng.uniform(0.85, 1.15, count)
        self.colors = np.clip(leaf * shade[:, None], 8, 240)
        if snow:
            white = np.clip(up * 1.3 - 0.2, 0, 0.85)[:, None]
            self.colors = self.colors * (1 - white) + np.array([230.0, 226, 222]) * white
        turn = np.arange(CORNERS) * (2 * np.pi / CORNERS) + rng.uniform(0, 1, (count, 1))
        radius = rng.uniform(0.78, 1.12, (count, CORNERS))
        self.outline = np.stack([np.cos(turn) * radius, np.sin(turn) * radius], axis=2)

    def _tufts(self, rng: np.random.Generator, count: int, length: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Local centres, radii, and how far up in the plant each tuft is (0 to 1), from the back to the front."""
        up = np.sort(rng.random(count))
        turn = rng.uniform(0, 2 * np.pi, count)
        if self.form == "tree":
            half = self.crown / 2
            spread = half * 0.62 * np.sqrt(rng.random(count)) * np.sin(np.pi * (0.15 + 0.75 * up))
            y = self.height * (0.38 + 0.52 * up)
            radii = half * rng.uniform(0.34, 0.52, count)
            places = np.column_stack([spread * np.cos(turn), y, spread * np.sin(turn)])
        elif self.form == "conifer":
            up = np.asarray(np.linspace(0.05, 1, count), np.float64)
            radii = self.crown * 0.5 * (1.05 - up) * 0.8 + 0.12
            x = rng.uniform(-0.35, 0.35, count) * radii
            places = np.column_stack([x, self.height * (0.1 + 0.86 * up), np.zeros(count)])
        else:
            radii = self.height * rng.uniform(0.34, 0.5, count)
            z = -np.sort(-rng.uniform(-length / 2, length / 2, count))
            y = self.height * rng.uniform(0.3, 0.62, count)
            up = y / self.height
            places = np.column_stack([rng.uniform(-0.2, 0.2, count), y, z])
        return places, radii, up

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the trunk and the leaves."""
        pen.begin(owners[0])
        if self.form != "hedge":
            trunk = self.pose.to_world(np.array([[0, 0, 0], [0, self.height * 0.55, 0]]))
            pen.round_shape(trunk, (0.02 * self.height + 0.06, 0.05), BARK)
        pen.blobs(self.pose.to_world(self.places), self.radii, self.colors, self.outline)
