"""Images side by side, a row with a caption each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap

import cv2
import numpy as np

_DARK = 32
_STRIP = 24
# Width of a letter, about.
_LETTER = 9
_GAP = 12
_MIN_WIDTH = 192
# Rows of a block.
_LONGEST = 4


@dataclass(frozen=True)
class PanelRow:
    """A row of the picture.

    Attributes:
        panels: RGB images ``(H, W, 3)`` uint8 of one size.
        caption: what stands below, in as many lines as it needs.
    """

    panels: tuple[np.ndarray, ...]
    caption: str


def draw_panels(rows: Sequence[PanelRow], titles: Sequence[str]) -> np.ndarray:
    """Draw the rows under the titles of their columns, in two blocks side by side if there are many.

    Args:
        rows: at least one. Images below 192 pixels are enlarged.
        titles: one a panel.

    Returns:
        Picture, RGB ``(H, W, 3)`` uint8.
    """
    width = max(row.panels[0].shape[1] for row in rows)
    width *= math.ceil(_MIN_WIDTH / width)
    blocks = 1 if len(rows) <= _LONGEST else 2
    height = math.ceil(len(rows) / blocks)
    drawn = [_draw_block(rows[start : start + height], titles, width) for start in range(0, len(rows), height)]
    picture = np.full(
        (max(each.shape[0] for each in drawn), sum(each.shape[1] + _GAP for each in drawn) - _GAP, 3), _DARK, np.uint8
    )
    for number, block in enumerate(drawn):
        left = number * (block.shape[1] + _GAP)
        picture[: block.shape[0], left : left + block.shape[1]] = block
    return picture


def _draw_block(rows: Sequence[PanelRow], titles: Sequence[str], width: int) -> np.ndarray:
    """Titles and rows, with columns of this width."""
    parts = [np.hstack([_strip(title, width) for title in titles])]
    for row in rows:
        size = (width, round(width * row.panels[0].shape[0] / row.panels[0].shape[1]))
        parts.append(np.hstack([cv2.resize(panel, size, interpolation=cv2.INTER_NEAREST) for panel in row.panels]))
        lines = wrap(row.caption, len(titles) * width // _LETTER) or [""]
        parts += [_strip(line, len(titles) * width) for line in lines]
    return np.vstack(parts)


def _strip(text: str, width: int) -> np.ndarray:
    """A dark line with text."""
    strip = np.full((_STRIP, width, 3), _DARK, np.uint8)
    cv2.putText(strip, text, (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1, cv2.LINE_AA)
    return strip
