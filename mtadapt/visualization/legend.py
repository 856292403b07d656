"""The strips around the panels: titles above them, names of colours below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from mtadapt.visualization.text import Colour, put_text, shortened, text_size

#: Height of a strip in a picture whose panels are at most 1280 pixels wide.
STRIP = 28
_DARK, _WHITE, _GREY = 32, (255, 255, 255), (160, 160, 160)


def widened(panel: np.ndarray, width: int) -> np.ndarray:
    """A panel ``(H, W, 3)`` with a dark margin on its right, where it is narrower than ``width`` pixels."""
    missing = max(0, width - panel.shape[1])
    return np.pad(panel, ((0, 0), (0, missing), (0, 0)), constant_values=_DARK) if missing else panel


def with_title(panel: np.ndarray, title: str, unit: float) -> np.ndarray:
    """Put a strip with a title on a panel.

    Args:
        panel: RGB ``(H, W, 3)`` uint8.
        title: one line, which is shortened where it is too long.
        unit: by how much the strip is larger than that of a small picture.
    """
    strip = _strip(panel.shape[1], unit)
    size, margin = round(15 * unit), round(8 * unit)
    text = shortened(title, size, panel.shape[1] - 2 * margin)
    put_text(strip, text, margin, (strip.shape[0] - text_size(text, size)[1]) // 2, size, _WHITE)
    return np.vstack([strip, panel])


def legend(classes: Mapping[str, Sequence[tuple[str, Colour]]], width: int, unit: float) -> np.ndarray:
    """Coloured squares with names, in as many strips as they need.

    Args:
        classes: task to the names and colours of its classes.
        width: of the picture.
        unit: see :func:`with_title`.
    """
    size, margin, square = round(13 * unit), round(8 * unit), round(14 * unit)
    rows, left = [_strip(width, unit)], margin
    middle = rows[0].shape[0] // 2
    for task, entries in classes.items():
        words: list[tuple[str, Colour | None]] = [(f"{task}:", None), *entries] if entries else []
        for number, (text, colour) in enumerate(words):
            mark = 0 if colour is None else square + round(6 * unit)
            text = shortened(text, size, width - mark - 2 * margin)
            needed = mark + text_size(text, size)[0]
            # The name of a task stays with its first class.
            together = needed + 3 * margin + square + text_size(words[1][0], size)[0] if number == 0 else needed
            if left + together + margin > width and left > margin:
                rows.append(_strip(width, unit))
                left = margin
            if colour is not None:
                corners = (left, middle - square // 2), (left + square, middle - square // 2 + square)
                cv2.rectangle(rows[-1], *corners, [int(value) for value in colour], -1)
                # Dark colours would not be seen on the strip.
                cv2.rectangle(rows[-1], *corners, _GREY, 1)
            top = middle - text_size(text, size)[1] // 2
            put_text(rows[-1], text, left + mark, top, size, _GREY if colour is None else _WHITE)
            left += needed + round(16 * unit)
    return np.vstack(rows)


def _strip(width: int, unit: float) -> np.ndarray:
    return np.full((round(STRIP * unit), width, 3), _DARK, np.uint8)
