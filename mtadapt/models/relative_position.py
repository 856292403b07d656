"""Learned positions of one window or image size, resized to another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt

import torch.nn.functional as F
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from mtadapt.errors import MTAdaptError

#: How the names of the tables end in Swin Transformers of mmpretrain, mmdet and mmseg.
TABLE = "relative_position_bias_table"


def resize_table(name: str, table: Tensor, own: Tensor) -> Tensor:
    """Resize a table of relative positions to another window.

    A window of ``w x w`` tokens has ``(2 w - 1) ** 2`` relative positions. The grid of a head is interpolated as an
    image, bicubic with the outer borders of both grids on each other (``align_corners=False``), as mmdet and mmseg do;
    mmpretrain's own way needs a function that SciPy has removed.

    Args:
        name: of the table, for the message.
        table: of the checkpoint, ``((2 w - 1) ** 2, heads)``.
        own: that of the model, ``((2 v - 1) ** 2, heads)``; only its shape is read.

    Returns:
        ``((2 v - 1) ** 2, heads)`` in the type of ``table``; ``table`` itself where the windows are equal.

    Raises:
        MTAdaptError: when the tables differ in more than the window.
    """
    if table.shape == own.shape:
        return table
    old, new = isqrt(len(table)), isqrt(len(own))
    if table.dim() != 2 or table.shape[1:] != own.shape[1:] or old * old != len(table) or new * new != len(own):
        raise MTAdaptError(
            f"{name}: the checkpoint has the shape {tuple(table.shape)}, the model {tuple(own.shape)}; only the window "
            "size may differ, use the architecture of the checkpoint"
        )
    grid = table.float().T.reshape(1, -1, old, old)
    grid = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return grid.flatten(2)[0].T.to(table.dtype)


def resize_tables(state: dict[str, Tensor], own: Mapping[str, Tensor], prefix: str = "") -> dict[str, tuple[int, int]]:
    """Resize the tables of a state dict in place, and give it the model's indices where it did.

    Args:
        state: of the checkpoint.
        own: of the model.
        prefix: what stands before the model's names in ``state``.

    Returns:
        Name of each resized table, without the prefix, to the numbers of positions before and after.

    Raises:
        MTAdaptError: when tables differ in more than the window.
    """
    resized = {}
    for name, value in own.items():
        table = state.get(prefix + name)
        if table is None or not name.endswith(TABLE) or table.shape == value.shape:
            continue
        state[prefix + name] = resize_table(prefix + name, table, value)
        index = name.replace("bias_table", "index")
        if index in own:
            state[prefix + index] = own[index]
        resized[name] = (len(table), len(value))
    return resized


def resize_absolute(name: str, embedding: Tensor, own: Tensor, grid: Sequence[int] | None = None) -> Tensor:
    """Resize the absolute position embedding of a Swin Transformer, which has a vector for every patch of an image.

    Args:
        name: of the embedding, for the message.
        embedding: of the checkpoint, ``(1, h * h, C)``: of square images.
        own: that of the model, ``(1, H * W, C)``; only its shape is read.
        grid: ``(H, W)``; by default ``H`` equals ``W``.

    Returns:
        ``(1, H * W, C)``, bicubic; ``embedding`` itself where the shapes are equal.

    Raises:
        MTAdaptError: when the shapes differ in more than the number of patches, or an image is not square.
    """
    if embedding.shape == own.shape:
        return embedding
    if embedding.dim() == own.dim() == 3 and embedding.shape[::2] == own.shape[::2]:
        old, side = isqrt(embedding.shape[1]), isqrt(own.shape[1])
        height, width = grid or (side, side)
        if old * old == embedding.shape[1] and height * width == own.shape[1]:
            return resize_pos_embed(embedding, (old, old), (height, width), "bicubic", 0)
    raise MTAdaptError(
        f"{name}: the checkpoint has the shape {tuple(embedding.shape)}, the model {tuple(own.shape)}; only the size "
        "of square images may differ, use the architecture of the checkpoint"
    )
