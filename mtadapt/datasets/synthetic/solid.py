"""Solid bodies: a side outline drawn out to a width, with details painted on its faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mtadapt.datasets.synthetic.pen import Pen

DETAIL_SCALE = 9.0  # painted pixels in a metre below which details are left out


@dataclass(frozen=True)
class Pose:
    """Place of a thing on the ground and the way it faces; yaw 0 faces away from the camera, along Z."""

    x: float
    z: float
    yaw: float = 0.0
    y: float = 0.0

    def to_world(self, local: np.ndarray) -> np.ndarray:
        """Local points ``(N, 3)`` (right, up, forward) in the world."""
        sin, cos = np.sin(self.yaw), np.cos(self.yaw)
        world = local @ np.array([[cos, 0.0, -sin], [0.0, 1.0, 0.0], [sin, 0.0, cos]])
        return world + np.array([self.x, self.y, self.z])


@dataclass(frozen=True)
class Detail:
    """A polygon painted on a face of a prism.

    Args:
        face: Number of the end face (the one after outline point ``face``), or -1 for both sides.
        polygon: ``(N, 2)``: on an end face (across from -1 to 1, along from 0 to 1); on a side (forward, up) in metres.
        color: BGR.
        lamp: Shines itself.
        glow: Radius in metres of the light around it, 0 for none.
        beyond: The polygon reaches over the edge of its face, such as a wheel.
    """

    face: int
    polygon: np.ndarray
    color: np.ndarray
    lamp: bool = False
    glow: float = 0.0
    beyond: bool = False


@dataclass
class Prism:
    """A convex body between two copies of a side outline.

    Args:
        outline: ``(K, 2)`` points (forward, up) in metres, convex, in order.
        half_width: Half of its width, one number or one for each point ``(K,)``.
        color: BGR under white light.
        centre: Shift to the right in metres.
        details: What is painted on the faces.
        roof: Colour of faces that look up, None for ``color``.
        fine: Left out from far away.
    """

    outline: np.ndarray
    half_width: float | np.ndarray
    color: np.ndarray
    centre: float = 0.0
    details: Sequence[Detail] = field(default_factory=list)
    roof: np.ndarray | None = None
    fine: bool = False

    def __post_init__(self) -> None:
        self.outline = np.asarray(self.outline, float)
        count = len(self.outline)
        self.widths = np.broadcast_to(np.asarray(self.half_width, float), (count,))
        left = np.column_stack([self.centre - self.widths, self.outline[:, 1], self.outline[:, 0]])
        right = np.column_stack([self.centre + self.widths, self.outline[:, 1], self.outline[:, 0]])
        self.points = np.concatenate([left, right])
        following = np.roll(np.arange(count), -1)
        ends = np.column_stack([np.arange(count), following, following + count, np.arange(count) + count])
        self.indices = [*ends, np.arange(count), np.arange(count) + count]

    def draw(self, pen: Pen, pose: Pose) -> None:
        """Paint the faces that look at the camera, with their details."""
        fine = pen.scale_at(np.array([pose.x, 1.0, pose.z])) > DETAIL_SCALE
        if self.fine and not fine:
            return
        world = pose.to_world(self.points)
        middle = world.mean(axis=0)
        for number, index in enumerate(self.indices):
            face = world[index]
            normal = _outward(face, middle)
            if normal @ (face[0] - pen.camera.position) >= 0:
                continue
            color = self.color if self.roof is None or normal[1] < 0.5 else self.roof
            pen.faces([face], color, normal)
            self._draw_details(pen, pose, number, face, normal, fine)

    def _draw_details(
        self, pen: Pen, pose: Pose, number: int, face: np.ndarray, normal: np.ndarray, fine: bool
    ) -> None:
        """Paint what is on one face; from far away only what changes the outline, and the lamps."""
        side = number - len(self.outline)
        for detail in self.details:
            if detail.face != (number if side < 0 else -1) or not (fine or detail.beyond or detail.glow):
                continue
            if side < 0:
                points = _on_quad(face, detail.polygon)
            else:
                points = pose.to_world(self._on_side(detail.polygon, right=side == 1))
            pen.faces([points], detail.color, normal, detail=not detail.beyond, lamp=detail.lamp)
            if detail.glow:
                pen.glow(points.mean(axis=0), detail.color, detail.glow)

    def _on_side(self, polygon: np.ndarray, right: bool) -> np.ndarray:
        low, high = self.outline[:, 1].argmin(), self.outline[:, 1].argmax()
        ends = self.outline[[low, high], 1]
        width = np.interp(polygon[:, 1], ends, self.widths[[low, high]])
        return np.column_stack([self.centre + (width if right else -width), polygon[:, 1], polygon[:, 0]])


def box(length: float, width: float, bottom: float, top: float, color: np.ndarray, **options: object) -> Prism:
    """A prism with a rectangular outline; its end faces are 0 rear, 1 top, 2 front, 3 bottom."""
    half = length / 2
    shift = float(options.pop("forward", 0.0))  # type: ignore[arg-type]
    outline = np.array([[-half, bottom], [-half, top], [half, top], [half, bottom]]) + [shift, 0.0]
    return Prism(outline, width / 2, color, **options)  # type: ignore[arg-type]


def rectangle(left: float, right: float, low: float, high: float) -> np.ndarray:
    """Corners ``(4, 2)`` of an upright rectangle."""
    return np.array([[left, low], [right, low], [right, high], [left, high]])


def circle(x: float, y: float, radius: float, count: int = 12) -> np.ndarray:
    """Outline ``(count, 2)`` of a circle."""
    turn = np.arange(count) * (2 * np.pi / count)
    return np.column_stack([x + radius * np.cos(turn), y + radius * np.sin(turn)])


def _outward(face: np.ndarray, middle: np.ndarray) -> np.ndarray:
    a, b = face[1] - face[0], face[2] - face[0]
    normal = np.array([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
    normal /= max(float(np.sqrt(normal @ normal)), 1e-9)
    return normal if normal @ (face[0] - middle) > 0 else -normal


def _on_quad(quad: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Points of a quad (left start, left end, right end, right start) at (across, along)."""
    across = (polygon[:, :1] + 1) / 2
    along = polygon[:, 1:]
    left = quad[0] + along * (quad[1] - quad[0])
    right = quad[3] + along * (quad[2] - quad[3])
    return left + across * (right - left)
