"""A pinhole camera above a ground plane.

World: X to the right, Y up, Z ahead, in metres, with the camera above (0, 0). Images: u to the right, v down.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

NEAR = 0.7


@dataclass(frozen=True)
class View:
    """How the camera is mounted, independent of the size of the image.

    Args:
        height: Height above the road in metres.
        pitch, yaw, roll: Radians; a positive pitch looks down, a positive yaw to the right.
        focal: Focal length in image widths.
    """

    height: float = 1.4
    pitch: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    focal: float = 0.9


class Camera:
    """Projection of the world into an image of ``width`` x ``height`` pixels."""

    def __init__(self, view: View, width: int, height: int) -> None:
        self.view = view
        self.width, self.height = width, height
        self.focal = view.focal * width
        self.centre = np.array([width / 2, height / 2])
        self.position = np.array([0.0, view.height, 0.0])
        sin_p, cos_p = np.sin(view.pitch), np.cos(view.pitch)
        sin_y, cos_y = np.sin(view.yaw), np.cos(view.yaw)
        ahead = np.array([sin_y * cos_p, -sin_p, cos_y * cos_p])
        right = np.array([cos_y, 0.0, -sin_y])
        down = np.array([-sin_y * sin_p, -cos_p, -cos_y * sin_p])
        sin_r, cos_r = np.sin(view.roll), np.cos(view.roll)
        self.rotation = np.stack([cos_r * right + sin_r * down, cos_r * down - sin_r * right, ahead])

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points ``(N, 3)`` in the camera's axes: right, down, depth."""
        return (points - self.position) @ self.rotation.T

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Camera points ``(N, 3)`` of positive depth as pixels ``(N, 2)``."""
        return points[:, :2] * (self.focal / points[:, 2:]) + self.centre

    def polygon(self, points: np.ndarray) -> tuple[np.ndarray, float] | None:
        """A world polygon ``(N, 3)`` cut at the near plane: its pixels ``(M, 2)`` and its middle depth, or None."""
        local = self.to_camera(points)
        nearest, furthest = float(local[:, 2].min()), float(local[:, 2].max())
        if nearest < NEAR:
            if furthest <= NEAR:
                return None
            local, nearest = clip_near(local), NEAR
        return self.to_image(local), (nearest + furthest) / 2

    def points(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points ``(N, 3)`` as pixels ``(N, 2)`` and depths ``(N,)``; a depth below ``NEAR`` is not visible."""
        local = self.to_camera(points)
        depth = local[:, 2].copy()
        local[:, 2] = np.maximum(depth, NEAR)
        return self.to_image(local), depth

    def ground(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Where each pixel's ray meets the ground: X, Z and distance, each ``(H, W)``, inf above the horizon."""
        u = ((np.arange(self.width) + 0.5 - self.centre[0]) / self.focal).astype(np.float32)
        v = ((np.arange(self.height) + 0.5 - self.centre[1]) / self.focal).astype(np.float32)[:, None]
        rows = self.rotation.astype(np.float32)
        fall = -(rows[0, 1] * u + rows[1, 1] * v + rows[2, 1])
        with np.errstate(divide="ignore"):
            time = np.where(fall > 1e-4, np.float32(self.view.height) / np.maximum(fall, 1e-4), np.float32(np.inf))
        with np.errstate(invalid="ignore"):
            x = (rows[0, 0] * u + rows[1, 0] * v + rows[2, 0]) * time
            z = (rows[0, 2] * u + rows[1, 2] * v + rows[2, 2]) * time
        return x, z, time

    def horizon(self) -> float:
        """Row of the horizon in the middle of the image."""
        return float(self.centre[1] - self.focal * np.tan(self.view.pitch))


def clip_near(local: np.ndarray) -> np.ndarray:
    """Cut a polygon ``(N, 3)`` in camera axes at depth ``NEAR`` (Sutherland and Hodgman, for one plane)."""
    kept: list[np.ndarray] = []
    previous = local[-1]
    for point in local:
        if (previous[2] < NEAR) != (point[2] < NEAR):
            share = (NEAR - previous[2]) / (point[2] - previous[2])
            kept.append(previous + share * (point - previous))
        if point[2] >= NEAR:
            kept.append(point)
        previous = point
    return np.array(kept)
