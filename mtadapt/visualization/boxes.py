"""Boxes whose labels stay in the picture and off each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from mtadapt.visualization.text import Colour, put_text, readable_on, text_size

_MARGIN = 3


class _Rectangle(NamedTuple):
    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: _Rectangle) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


def draw_boxes(canvas: np.ndarray, corners: np.ndarray, texts: Sequence[str], colours: Sequence[Colour]) -> None:
    """Draw boxes and their labels into an image.

    A label stands at a corner of its box where it covers no other label and, if that is possible, no other box; one
    that finds no place is left out. The first boxes choose first and lie on top.

    Args:
        canvas: RGB ``(H, W, 3)`` uint8, which is changed.
        corners: ``(n, 4)`` ``xyxy`` in pixels, the most important first.
        texts: one a box.
        colours: one a box.
    """
    height, width = canvas.shape[:2]
    thickness = max(2, round(width / 800))
    size = label_size(width)
    limits = np.array([width, height, width, height]) - 1
    rectangles = [_Rectangle(*map(int, row)) for row in np.rint(corners.clip(0, limits))]
    for box, colour in zip(reversed(rectangles), reversed(colours), strict=True):
        cv2.rectangle(canvas, (box.left, box.top), (box.right, box.bottom), _plain(colour), thickness)
    occupied = _Occupied(rectangles)
    for number, (box, text, colour) in enumerate(zip(rectangles, texts, colours, strict=True)):
        free = [place for place in _places(box, text, size, width, height) if not occupied.by_labels(place)]
        if not free:
            continue
        # The first of the places that hide the least.
        label = min(free, key=lambda place: occupied.boxes_at(place, number))
        occupied.labels.append(label)
        cv2.rectangle(canvas, (label.left, label.top), (label.right - 1, label.bottom - 1), _plain(colour), -1)
        put_text(canvas, text, label.left + _MARGIN, label.top, size, readable_on(colour))


class _Occupied:
    """What is in the picture already."""

    def __init__(self, boxes: Sequence[_Rectangle]) -> None:
        self.labels: list[_Rectangle] = []
        self._boxes = np.array(boxes).reshape(-1, 4)

    def by_labels(self, place: _Rectangle) -> bool:
        """Whether a label is there."""
        return any(place.meets(label) for label in self.labels)

    def boxes_at(self, place: _Rectangle, own: int) -> int:
        """How many boxes are there besides its own."""
        left, top, right, bottom = self._boxes.T
        there = (place.left < right) & (left < place.right) & (place.top < bottom) & (top < place.bottom)
        return int(there.sum() - there[own])


def label_size(width: int) -> int:
    """Size of the letters in a picture of this width."""
    return max(11, round(width / 90))


def _places(box: _Rectangle, text: str, size: int, width: int, height: int) -> Iterator[_Rectangle]:
    """Places of a label, the best first: above the box, below it, then inside where the box is much larger."""
    own_width, own_height = text_size(text, size)
    own_width += 2 * _MARGIN
    right = box.right - own_width + 1
    corners = [(box.left, box.top - own_height), (right, box.top - own_height)]
    corners += [(box.left, box.bottom + 1), (right, box.bottom + 1)]
    inside = [(box.left, box.top), (box.left, box.bottom - own_height), (right, box.top)]
    if box.right - box.left >= own_width and box.bottom - box.top >= 3 * own_height:
        # A box at the upper edge of the picture has its label inside.
        corners = corners[:2] + inside[:1] + corners[2:] + inside[1:]
    corners += [(box.right + 1, box.top), (box.left - own_width, box.top)]
    for left, top in corners:
        left = min(max(left, 0), max(0, width - own_width))
        if top >= 0 and top + own_height <= height:
            yield _Rectangle(left, top, left + own_width, top + own_height)


def _plain(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in colour)
    return red, green, blue
