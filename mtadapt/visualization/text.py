"""Text in pictures, with a font that draws every alphabet of class names well at small sizes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Colour = Sequence[int]


@lru_cache(maxsize=32)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)


@lru_cache(maxsize=4096)
def _coverage(text: str, size: int) -> np.ndarray:
    """How much of each pixel the letters cover, ``(h, w)`` float32; ``h`` depends on the size alone."""
    font = _font(size)
    ascent, descent = font.getmetrics()
    canvas = Image.new("L", (max(1, round(font.getlength(text))), ascent + descent))
    ImageDraw.Draw(canvas).text((0, 0), text, fill=255, font=font)
    return np.asarray(canvas, np.float32) / 255


def text_size(text: str, size: int) -> tuple[int, int]:
    """Width and height of a line of text, in pixels."""
    height, width = _coverage(text, size).shape
    return width, height


def shortened(text: str, size: int, width: int) -> str:
    """The text, with an ellipsis where it is wider than ``width`` pixels."""
    if text_size(text, size)[0] <= width:
        return text
    while text and text_size(text + "…", size)[0] > width:
        text = text[:-1]
    return text + "…"


def put_text(canvas: np.ndarray, text: str, left: int, top: int, size: int, colour: Colour) -> None:
    """Write a line into an image ``(H, W, 3)`` uint8; what is outside is cut off."""
    coverage = _coverage(text, size)
    first = (max(0, -top), max(0, -left))
    last = (min(coverage.shape[0], canvas.shape[0] - top), min(coverage.shape[1], canvas.shape[1] - left))
    if last[0] <= first[0] or last[1] <= first[1]:
        return
    coverage = coverage[first[0] : last[0], first[1] : last[1], None]
    region = canvas[top + first[0] : top + last[0], left + first[1] : left + last[1]]
    region[:] = np.rint(region * (1 - coverage) + np.asarray(colour, np.float32) * coverage).astype(np.uint8)


def readable_on(colour: Colour) -> Colour:
    """Black or white, whichever stands out from a background."""
    red, green, blue = colour
    return (0, 0, 0) if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else (255, 255, 255)
