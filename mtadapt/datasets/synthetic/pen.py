"""Paint shapes of the world onto the canvas, lit, hazed and owned by the thing that is being drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtadapt.datasets.synthetic.camera import NEAR, Camera
from mtadapt.datasets.synthetic.canvas import Canvas
from mtadapt.datasets.synthetic.light import Light

UP = np.array([0.0, 1.0, 0.0])
TOWARDS = np.array([0.0, 0.0, -1.0])
_ARC = np.linspace(-np.pi / 2, np.pi / 2, 6)
_HALF_CIRCLE = np.stack([np.cos(_ARC), np.sin(_ARC)], axis=1)


@dataclass(frozen=True)
class Glow:
    """A lamp that shines in the picture: its place, colour and radius in painted pixels, and its mirror's place.

    It shines only where its ``owner`` can still be seen when the painting is done.
    """

    place: np.ndarray
    mirror: np.ndarray
    color: np.ndarray
    radius: float
    owner: int


class Pen:
    """Draws for one owner at a time and remembers how far that owner's shapes reach.

    Attributes:
        tracked: Owners that will need a box.
        extents: Tracked owner -> ``[left, top, right, bottom]`` of its shapes, in painted pixels and also outside.
        glows: Lamps to be lit when the painting is done.
    """

    def __init__(self, canvas: Canvas, camera: Camera, light: Light) -> None:
        self.canvas, self.camera, self.light = canvas, camera, light
        self.owner = 0
        self.tracked: set[int] = set()
        self.extents: dict[int, np.ndarray] = {}
        self.glows: list[Glow] = []

    def begin(self, owner: int) -> None:
        """Give everything that follows to ``owner``."""
        self.owner = owner

    def scale_at(self, point: np.ndarray) -> float:
        """Painted pixels in one metre at a world point ``(3,)``, 0 behind the camera."""
        depth = self.camera.rotation[2] @ (point - self.camera.position)
        return float(self.camera.focal / depth) if depth > NEAR else 0.0

    def faces(
        self,
        faces: Sequence[np.ndarray],
        color: np.ndarray,
        normal: np.ndarray = TOWARDS,
        *,
        detail: bool = False,
        lamp: bool = False,
    ) -> None:
        """Fill flat faces of one colour.

        Args:
            faces: World polygons ``(N, 3)``.
            color: BGR under white light.
            normal: Unit normal that decides the light on all of them.
            detail: The faces lie on the thing and change its colour only.
            lamp: The faces shine themselves.
        """
        polygons, depths = [], []
        for face in faces:
            cut = self.camera.polygon(face)
            if cut is not None:
                polygons.append(cut[0])
                depths.append(cut[1])
        if polygons:
            depth = sum(depths) / len(depths)
            self._fill(polygons, self.light.seen(color, normal, float(faces[0][0, 0]), depth, lamp), detail)

    def round_shape(self, points: np.ndarray, radii: Sequence[float], color: np.ndarray, detail: bool = False) -> None:
        """Fill the outline of two balls and what lies between them: a limb, a post, a head.

        Args:
            points: World centres ``(2, 3)``.
            radii: Radii of both in metres.
            color: BGR under white light.
            detail: As for :meth:`faces`.
        """
        pixels, depths = self.camera.points(points)
        depth = float(depths.mean())
        if depths.min() < NEAR:
            return
        sizes = self.camera.focal / depths * np.asarray(radii)
        axis = pixels[1] - pixels[0]
        length = float(np.hypot(axis[0], axis[1]))
        along = axis / length if length > 1e-6 else np.array([1.0, 0.0])
        turn = np.array([along, [-along[1], along[0]]])
        half = _HALF_CIRCLE @ turn
        outline = np.concatenate([pixels[1] + max(sizes[1], 0.5) * half, pixels[0] - max(sizes[0], 0.5) * half])
        self._fill([outline], self.light.seen(color, TOWARDS, float(points[0, 0]), depth), detail)

    def outline(self, pixels: np.ndarray, color: np.ndarray, x: float, depth: float, normal: np.ndarray) -> None:
        """Fill a polygon ``(N, 2)`` that is already in painted pixels and stands at ``x`` and ``depth``."""
        self._fill([pixels], self.light.seen(color, normal, x, depth), False)

    def line(self, points: np.ndarray, width: float, color: np.ndarray, detail: bool = False) -> None:
        """Draw an open line of ``width`` metres through world points ``(N, 3)``."""
        pixels, depths = self.camera.points(points)
        if depths.min() < NEAR:
            return
        depth = float(depths.mean())
        tint = self.light.seen(color, TOWARDS, float(points[0, 0]), depth)
        thickness = width * self.camera.focal / depth
        self.canvas.line(pixels, thickness, tint, None if detail else self.owner)
        if not detail:
            self._reach(pixels, thickness / 2)

    def blobs(self, centres: np.ndarray, radii: np.ndarray, colors: np.ndarray, outline: np.ndarray) -> None:
        """Fill round tufts of leaves.

        Args:
            centres: World centres ``(N, 3)``.
            radii: ``(N,)`` in metres.
            colors: ``(N, 3)`` BGR under white light.
            outline: ``(N, K, 2)`` shapes of unit radius.
        """
        pixels, depths = self.camera.points(centres)
        sizes = radii * self.camera.focal / np.maximum(depths, NEAR)
        shapes = pixels[:, None] + outline * sizes[:, None, None]
        x = centres[:, 0].tolist()
        for number, depth in enumerate(depths.tolist()):
            if depth > 1.0:
                self._fill([shapes[number]], self.light.seen(colors[number], TOWARDS, x[number], depth), False)

    def glow(self, point: np.ndarray, color: np.ndarray, radius: float) -> None:
        """Let a lamp of ``radius`` metres at a world point ``(3,)`` shine, if nothing painted later hides it."""
        both = np.stack([point, point * np.array([1.0, -1.0, 1.0])])
        pixels, depths = self.camera.points(both)
        if depths[0] > 1.0:
            size = max(radius * self.camera.focal / float(depths[0]), 0.8)
            keep = float(np.exp(-depths[0] / self.light.visibility))
            self.glows.append(Glow(pixels[0], pixels[1], np.asarray(color) * keep, size, self.owner))

    def _fill(self, polygons: Sequence[np.ndarray], color: Sequence[float], detail: bool) -> None:
        self.canvas.fill(polygons, color, None if detail else self.owner)
        if not detail:
            for polygon in polygons:
                self._reach(polygon, 0.0)

    def _reach(self, pixels: np.ndarray, margin: float) -> None:
        if self.owner not in self.tracked:
            return
        low, high = pixels.min(axis=0) - margin, pixels.max(axis=0) + margin
        old = self.extents.get(self.owner)
        if old is None:
            self.extents[self.owner] = np.concatenate([low, high])
        else:
            np.minimum(old[:2], low, out=old[:2])
            np.maximum(old[2:], high, out=old[2:])
