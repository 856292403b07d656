"""The picture while it is being painted, together with the map that says which thing each pixel shows."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

SHIFT = 3  # polygons are drawn to an eighth of a pixel
FAR_OUT = 12000.0  # polygons are cut this far outside the image: OpenCV's fixed point numbers would overflow
Color = Sequence[float] | np.ndarray


class Canvas:
    """Colours and owners at ``scale`` times the size of the final image.

    ``owners`` holds one number per thing. Because every shape is painted into both arrays, what is hidden in the
    picture is hidden in the labels too, and boxes, classes and drivable area are all read off this one map.

    Args:
        width, height: Size of the final image.
        scale: Supersampling of the painting; 1 paints smooth edges instead.
    """

    def __init__(self, width: int, height: int, scale: int) -> None:
        self.scale = scale
        self.width, self.height = width * scale, height * scale
        self.rgb = np.zeros((self.height, self.width, 3), np.uint8)
        self.owners = np.zeros((self.height, self.width), np.int32)
        self.line_type = cv2.LINE_AA if scale == 1 else cv2.LINE_8

    def fill(self, polygons: Sequence[np.ndarray], color: Color, owner: int | None) -> None:
        """Paint polygons of ``(N, 2)`` pixels; ``owner=None`` changes the colour only (a detail on a thing)."""
        fixed = [points for points in map(fixed_point, polygons) if len(points) > 2]
        if not fixed:
            return
        cv2.fillPoly(self.rgb, fixed, _scalar(color), self.line_type, SHIFT)
        if owner is not None:
            cv2.fillPoly(self.owners, fixed, (owner,), cv2.LINE_8, SHIFT)

    def line(self, points: np.ndarray, width: float, color: Color, owner: int | None) -> None:
        """Paint an open line through ``(N, 2)`` pixels, at least one pixel wide."""
        thickness = max(1, round(width))
        fixed = [fixed_point(np.clip(points, -FAR_OUT, FAR_OUT))]
        cv2.polylines(self.rgb, fixed, False, _scalar(color), thickness, self.line_type, SHIFT)
        if owner is not None:
            cv2.polylines(self.owners, fixed, False, (owner,), thickness, cv2.LINE_8, SHIFT)

    def darken(self, polygons: Sequence[np.ndarray], strength: float, blur: float) -> None:
        """Multiply the colour inside polygons by ``1 - strength``, with a soft edge of ``blur`` pixels."""
        mask = np.zeros(self.owners.shape, np.uint8)
        for points in map(fixed_point, polygons):
            if len(points) < 3:
                continue
            cv2.fillPoly(mask, [points], (255,), cv2.LINE_8, SHIFT)
        size = 2 * round(blur) + 1
        mask = cv2.blur(mask, (size, size))
        gain = cv2.merge([255 - (mask * strength).astype(np.uint8)] * 3)
        self.rgb = cv2.multiply(self.rgb, gain, scale=1 / 255)

    def final_image(self) -> np.ndarray:
        """The colours at the final size."""
        if self.scale == 1:
            return self.rgb
        size = (self.width // self.scale, self.height // self.scale)
        return cv2.resize(self.rgb, size, interpolation=cv2.INTER_AREA)

    def final_owners(self) -> np.ndarray:
        """The owners at the final size, each taken from one painted pixel (a mean of two owners is neither)."""
        return self.owners[self.scale // 2 :: self.scale, self.scale // 2 :: self.scale]


def fixed_point(points: np.ndarray) -> np.ndarray:
    """Pixel positions, with pixel centres at halves, as OpenCV's fixed point numbers (centres at integers)."""
    if np.abs(points).max() > FAR_OUT:
        for axis in (0, 1):
            for side in (-1.0, 1.0):
                points = _cut(points, axis, side)
    return np.rint((points - 0.5) * (1 << SHIFT)).astype(np.int32)


def _cut(points: np.ndarray, axis: int, side: float) -> np.ndarray:
    """Keep the part of a polygon on which ``side * coordinate`` is at most ``FAR_OUT``."""
    kept = []
    room = FAR_OUT - side * points[:, axis]
    for number in range(len(points)):
        a, b = room[number - 1], room[number]
        if (a < 0) != (b < 0):
            kept.append(points[number - 1] + a / (a - b) * (points[number] - points[number - 1]))
        if b >= 0:
            kept.append(points[number])
    return np.array(kept).reshape(-1, 2)


def _scalar(color: Color) -> tuple[float, ...]:
    return tuple([float(min(max(value, 0.0), 255.0)) for value in color])
