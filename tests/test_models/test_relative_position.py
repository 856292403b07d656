"""Tables of relative positions of another window, against OpenCV's bicubic resize and the cubic kernel written out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from mmpretrain.models.utils import resize_pos_embed

from mtadapt.errors import MTAdaptError
from mtadapt.models.relative_position import resize_absolute, resize_table, resize_tables


def table(window: int, heads: int = 3) -> torch.Tensor:
    return torch.randn((2 * window - 1) ** 2, heads, generator=torch.Generator().manual_seed(window))


def cubic_matrix(old: int, new: int, a: float = -0.75) -> np.ndarray:
    """Keys' kernel at the centres of the new pixels, borders repeated, in double precision."""
    matrix = np.zeros((new, old))
    for row in range(new):
        centre = (row + 0.5) * old / new - 0.5
        for column in range(int(np.floor(centre)) - 1, int(np.floor(centre)) + 3):
            x = abs(centre - column)
            near, far = ((a + 2) * x - (a + 3)) * x * x + 1, ((x - 5) * x + 8) * x * a - 4 * a
            matrix[row, min(max(column, 0), old - 1)] += near if x <= 1 else far
    return matrix


@pytest.mark.parametrize(("old", "new"), [(6, 7), (7, 6), (6, 12), (12, 7), (1, 3)])
def test_table_of_another_window(old: int, new: int):
    given = table(old)
    resized = resize_table("t", given, table(new))
    side, size = 2 * old - 1, 2 * new - 1
    matrix = cubic_matrix(side, size)
    for head in range(3):
        image = given[:, head].double().numpy().reshape(side, side)
        expected = matrix @ image @ matrix.T
        np.testing.assert_allclose(resized[:, head].reshape(size, size), expected, rtol=1e-5, atol=1e-5)
        if side > 1:
            opencv = cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
            np.testing.assert_allclose(resized[:, head].reshape(size, size), opencv, rtol=1e-5, atol=1e-5)


def test_the_same_window_is_the_same_table():
    given = table(6)
    assert resize_table("t", given, table(6)) is given


def test_symmetry_and_constants_are_kept():
    """A bias that depends on the distance alone goes on doing so; the nearest pair stays in the middle."""
    rows = torch.arange(-5.0, 6.0)
    bias = torch.exp(-(rows[:, None] ** 2 + rows[None] ** 2) / 9).reshape(-1, 1)
    grid = resize_table("t", bias, table(7, 1)).reshape(13, 13)
    torch.testing.assert_close(grid, grid.T)
    torch.testing.assert_close(grid, grid.flip(0))
    assert grid.argmax() == 6 * 13 + 6
    torch.testing.assert_close(resize_table("t", torch.full((121, 1), 0.3), table(7, 1)), torch.full((169, 1), 0.3))


def test_half_precision_stays_half():
    resized = resize_table("t", table(6).half(), table(7))
    assert resized.dtype is torch.half
    torch.testing.assert_close(resized.float(), resize_table("t", table(6), table(7)), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("given", [table(6, 4), table(6)[:-1], torch.zeros(121), torch.zeros(124, 3)])
def test_table_of_another_network(given: torch.Tensor):
    with pytest.raises(MTAdaptError, match=r"^stages\.0\.t: the checkpoint has the shape .* only the window size may"):
        resize_table("stages.0.t", given, table(7))


def test_tables_of_a_state_dict():
    own = {"a.relative_position_bias_table": table(7), "a.relative_position_index": torch.zeros(49, 49)}
    own |= {"b.relative_position_bias_table": table(6), "c.relative_position_bias_table": table(7)}
    state = {f"backbone.{name}": table(6) for name in own if name.endswith("table") and name[0] != "c"}
    state["backbone.a.relative_position_index"] = torch.zeros(36, 36)
    second = state["backbone.b.relative_position_bias_table"]
    assert resize_tables(state, own, "backbone.") == {"a.relative_position_bias_table": (121, 169)}
    assert state["backbone.a.relative_position_index"] is own["a.relative_position_index"]
    assert state["backbone.b.relative_position_bias_table"] is second
    assert "backbone.c.relative_position_bias_table" not in state


def test_absolute_position_embedding():
    given = torch.randn(1, 36, 5)
    assert resize_absolute("p", given, torch.zeros(1, 36, 5)) is given
    square, wide = torch.zeros(1, 49, 5), torch.zeros(1, 32, 5)
    expected = resize_pos_embed(given, (6, 6), (7, 7), num_extra_tokens=0)
    assert torch.equal(resize_absolute("p", given, square), expected)
    resized = resize_absolute("p", given, wide, (4, 8))[0].T.reshape(5, 4, 8)
    for channel in range(5):
        image = given[0, :, channel].double().numpy().reshape(6, 6)
        expected = cubic_matrix(6, 4) @ image @ cubic_matrix(6, 8).T
        np.testing.assert_allclose(resized[channel], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "own", "grid"),
    [
        (torch.zeros(1, 36, 5), torch.zeros(1, 49, 6), None),
        (torch.zeros(1, 35, 5), torch.zeros(1, 49, 5), None),
        (torch.zeros(1, 36, 5), torch.zeros(1, 32, 5), None),
        (torch.zeros(1, 36, 5), torch.zeros(1, 49, 5), (5, 5)),
        (torch.zeros(36, 5), torch.zeros(1, 49, 5), None),
    ],
)
def test_absolute_position_embedding_of_another_network(given: torch.Tensor, own: torch.Tensor, grid: tuple | None):
    with pytest.raises(MTAdaptError, match=r"^p: the checkpoint has the shape .* only the size of square images may"):
        resize_absolute("p", given, own, grid)
