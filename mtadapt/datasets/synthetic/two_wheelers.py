"""Bicycles and motorcycles, parked or ridden."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mtadapt.datasets.synthetic.camera import NEAR
from mtadapt.datasets.synthetic.pen import TOWARDS, Pen
from mtadapt.datasets.synthetic.people import draw_person, random_clothes, riding
from mtadapt.datasets.synthetic.solid import Pose, circle
from mtadapt.datasets.synthetic.thing import Thing
from mtadapt.datasets.synthetic.vehicles import HEAD_LIT, TAIL_LIT, TYRE, random_paint

METAL = np.array([120.0, 120, 122])


class TwoWheeler(Thing):
    """A bicycle or a motorcycle; with a rider it has two labelled parts, as in BDD100K.

    Args:
        rng: Source of its looks.
        pose: Where it stands; it drives along ``yaw``.
        motorcycle: A motorcycle instead of a bicycle.
        ridden: Somebody sits on it.
        lamps: Its lamps are lit.
    """

    shadow_strength = 0.7

    def __init__(
        self, rng: np.random.Generator, pose: Pose, motorcycle: bool, ridden: bool = True, lamps: bool = False
    ) -> None:
        kind = "motorcycle" if motorcycle else "bicycle"
        size = (0.75 if motorcycle else 0.6, 1.75 if ridden else 1.15, 2.1 if motorcycle else 1.75)
        super().__init__(pose, size, (kind, "rider") if ridden else (kind,))
        self.motorcycle, self.lamps = motorcycle, lamps
        self.paint = random_paint(rng)
        self.skeleton = riding(rng, motorcycle)
        self.clothes = random_clothes(rng, rain=False, helmet=True)

    def draw(self, pen: Pen, owners: Sequence[int]) -> None:
        """Paint the vehicle, and the rider on it."""
        pen.begin(owners[0])
        if self.motorcycle:
            self._draw_motorcycle(pen)
        else:
            self._draw_bicycle(pen)
        if len(owners) > 1:
            pen.begin(owners[1])
            draw_person(pen, self.pose, self.skeleton, self.clothes)
            if self.motorcycle and np.cos(self.pose.yaw) < -0.3:  # the front hides the rider's lower half
                pen.begin(owners[0])
                self._bar(pen, [0, 0.55, 0.45], [0, 1.0, 0.4], 0.13, 0.15, self.paint)
                self._draw_lamps(pen)

    def _bar(
        self, pen: Pen, start: Sequence[float], end: Sequence[float], thick: float, thin: float, color: np.ndarray
    ) -> None:
        pen.round_shape(self.pose.to_world(np.array([start, end], float)), (thick, thin), color)

    def _wheel(self, pen: Pen, forward: float, radius: float, tread: float, spokes: np.ndarray) -> None:
        """A wheel of ``tread`` metres width: the hull of its two rims, with a lighter disc when seen from the side."""
        rim = circle(forward, radius, radius, 16)
        local = np.column_stack([np.zeros(len(rim)), rim[:, 1], rim[:, 0]])
        sides = [self.pose.to_world(local + [shift, 0, 0]) for shift in (-tread / 2, tread / 2)]
        pixels, depths = pen.camera.points(np.concatenate(sides))
        if depths.min() < NEAR:
            return
        hull = cv2.convexHull(pixels.astype(np.float32))[:, 0].astype(float)
        depth = float(depths.mean())
        pen.outline(hull, TYRE, self.pose.x, depth, TOWARDS)
        inner = circle(forward, radius, radius * 0.84, 12)
        disc = self.pose.to_world(np.column_stack([np.zeros(len(inner)), inner[:, 1], inner[:, 0]]))
        if np.ptp(pixels[:, 0]) > 2.5 * tread * pen.camera.focal / depth:
            pen.faces([disc], spokes, TOWARDS, detail=True)

    def _draw_bicycle(self, pen: Pen) -> None:
        for forward in (-0.52, 0.52):
            self._wheel(pen, forward, 0.34, 0.06, np.array([108.0, 108, 108]))
        crank, seat, head = [0, 0.3, -0.02], [0, 0.88, -0.22], [0, 0.86, 0.38]
        for start, end in (
            (crank, seat),
            (crank, head),
            (seat, head),
            (crank, [0, 0.34, -0.52]),
            (head, [0, 0.34, 0.52]),
        ):
            self._bar(pen, start, end, 0.03, 0.03, self.paint)
        self._bar(pen, [0, 0.95, -0.34], [0, 0.95, -0.1], 0.06, 0.04, TYRE)
        self._bar(pen, head, [0, 1.04, 0.42], 0.025, 0.025, METAL)
        self._bar(pen, [-0.27, 1.05, 0.44], [0.27, 1.05, 0.44], 0.03, 0.03, TYRE)

    def _draw_motorcycle(self, pen: Pen) -> None:
        self._wheel(pen, -0.68, 0.32, 0.18, METAL * 0.7)
        self._wheel(pen, 0.72, 0.32, 0.14, METAL * 0.7)
        self._bar(pen, [0, 0.45, -0.25], [0, 0.5, 0.22], 0.2, 0.19, METAL * 0.5)
        self._bar(pen, [0.16, 0.32, -0.75], [0.14, 0.36, 0.1], 0.07, 0.05, METAL)
        self._bar(pen, [0, 0.36, 0.72], [0, 0.98, 0.4], 0.06, 0.05, METAL)
        self._bar(pen, [0, 0.8, -0.85], [0, 0.76, -0.1], 0.09, 0.15, TYRE)
        self._bar(pen, [0, 0.78, 0.02], [0, 0.85, 0.36], 0.18, 0.16, self.paint)
        self._bar(pen, [0, 0.7, -0.78], [0, 0.6, -0.9], 0.12, 0.08, self.paint)
        self._bar(pen, [-0.36, 1.02, 0.4], [0.36, 1.02, 0.4], 0.035, 0.035, TYRE)
        self._draw_lamps(pen)

    def _draw_lamps(self, pen: Pen) -> None:
        front = np.cos(self.pose.yaw) < 0
        place = self.pose.to_world(np.array([[0, 0.88, 0.62] if front else [0, 0.74, -0.93]]))[0]
        color = HEAD_LIT if front else TAIL_LIT
        pen.round_shape(np.stack([place, place]), (0.09, 0.09), color, detail=True)
        if self.lamps:
            pen.glow(place, color, 0.12)
