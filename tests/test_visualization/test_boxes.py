"""Labels of boxes: in the picture, off each other, and there where there is room."""

from __future__ import annotations

import numpy as np
import pytest

from mtadapt.visualization.boxes import draw_boxes, label_size
from mtadapt.visualization.text import put_text, readable_on, shortened, text_size

GREY = 90


def drawn(corners: list[list[float]], texts: list[str], size: tuple[int, int] = (360, 640)) -> np.ndarray:
    """A picture in which each box has its own colour, so that its label can be found."""
    canvas = np.full((*size, 3), GREY, np.uint8)
    colours = [(200, 10 + 10 * number, 30) for number in range(len(texts))]
    draw_boxes(canvas, np.array(corners, float), texts, colours)
    return canvas


def label_pixels(canvas: np.ndarray, number: int) -> int:
    return int((canvas == (200, 10 + 10 * number, 30)).all(axis=2).sum())


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 40, 30],
        [600, 0, 639, 30],
        [0, 330, 40, 359],
        [600, 330, 639, 359],
        [0, 0, 639, 359],
        [-50, -50, 800, 800],
    ],
)
def test_a_label_at_an_edge_is_in_the_picture_in_whole(box: list[float]):
    """The label of a box in the middle has as many pixels of its colour as that of a box at an edge."""
    text = "traffic sign 0.98"
    width, height = text_size(text, label_size(640))
    canvas = drawn([box], [text])
    bare = np.full((height, width + 6, 3), (200, 10, 30), np.uint8)
    put_text(bare, text, 3, 0, label_size(640), readable_on((200, 10, 30)))
    found = any(
        np.array_equal(canvas[top : top + height, left : left + width + 6], bare)
        for top in range(360 - height + 1)
        for left in range(640 - width - 5)
        if (canvas[top, left] == bare[0, 0]).all() and (canvas[top + height - 1, left] == bare[-1, 0]).all()
    )
    assert found


def test_labels_do_not_cover_each_other():
    """Boxes at nearly one place: every label that is drawn can be read in whole, and the best one is drawn."""
    texts = [f"car 0.{90 - number}" for number in range(12)]
    canvas = drawn([[300 + number, 150 + number, 360 + number, 200 + number] for number in range(12)], texts)
    width, height = text_size(texts[0], label_size(640))
    counts = [label_pixels(canvas, number) for number in range(12)]
    alone = [
        label_pixels(drawn([[300, 150, 360, 200]] * (number + 1), [""] * number + [text]), number)
        for number, text in enumerate(texts)
    ]
    assert counts[0] > 0.5 * width * height
    readable = sum(count > 0.5 * width * height for count in counts)
    assert 4 <= readable < 12
    assert all(count < 0.3 * width * height or count > 0.5 * width * height for count in counts)
    assert max(alone) > 0.5 * width * height


def test_an_empty_place_is_preferred_to_another_box():
    """Above the box there is another one, so the label stands below it."""
    canvas = drawn([[300, 200, 360, 240], [300, 150, 420, 199]], ["car", "bus"])
    height = text_size("car", label_size(640))[1]
    below = canvas[242 : 240 + height, 300:320]
    assert ((below == (200, 10, 30)).all(axis=2)).mean() > 0.4


def test_text_is_cut_at_the_edge_and_shortened():
    canvas = np.full((20, 40, 3), GREY, np.uint8)
    put_text(canvas, "pedestrian", -10, -5, 14, (255, 255, 255))
    put_text(canvas, "pedestrian", 30, 15, 14, (255, 255, 255))
    assert (canvas != GREY).any()
    put_text(canvas, "pedestrian", 100, 100, 14, (255, 255, 255))
    short = shortened("traffic light and sign", 14, 80)
    assert short.endswith("…") and text_size(short, 14)[0] <= 80
    assert shortened("car", 14, 80) == "car"
    assert readable_on((230, 220, 0)) == (0, 0, 0) and readable_on((0, 0, 142)) == (255, 255, 255)
