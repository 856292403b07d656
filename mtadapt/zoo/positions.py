"""Positions that a checkpoint learned for its windows and image size, made to fit those of a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.relative_position import TABLE, resize_absolute, resize_table, resize_tables

_SWIN_EMBEDDING = "absolute_pos_embed"
_VIT_EMBEDDING = "pos_embed"
_SHARED_TABLE = f"rel_pos_bias.{TABLE}"
# BEiT's tables end in three entries for the class token.
_CLASS_ENTRIES = 3
_TOKENS = ("cls_token", "dist_token")


def fit_positions(
    backbone: nn.Module, state: dict[str, Tensor], own: Mapping[str, Tensor]
) -> tuple[tuple[str, ...], tuple[int, int] | None]:
    """Resize tables of relative positions and absolute position embeddings in place, bicubic.

    Ours: where the checkpoint has no position for its class token, as timm's DINOv2, that of the backbone is zero,
    which computes the same; a table that all layers of a BEiT share is given to each layer, as its authors do.

    Args:
        backbone: whose ``patch_resolution`` and ``interpolate_mode`` count, where it has them.
        state: of the checkpoint, under the backbone's names.
        own: of the backbone.

    Returns:
        Names of what was resized, and the windows of the checkpoint and of the backbone where tables were.

    Raises:
        MTAdaptError: when shapes differ in more than windows and image size.
    """
    before = {name: value.shape for name, value in state.items()}
    beit = _fit_beit_tables(state, own)
    tables = resize_tables(state, own)
    if _SWIN_EMBEDDING in state and _SWIN_EMBEDDING in own:
        grid = getattr(backbone, "patch_resolution", None)
        state[_SWIN_EMBEDDING] = resize_absolute(_SWIN_EMBEDDING, state[_SWIN_EMBEDDING], own[_SWIN_EMBEDDING], grid)
    if _VIT_EMBEDDING in state and _VIT_EMBEDDING in own:
        state[_VIT_EMBEDDING] = _fit_embedding(backbone, state[_VIT_EMBEDDING], own)
    resized = tuple(name for name, shape in before.items() if name in state and state[name].shape != shape)
    if not tables:
        return resized, beit
    old, now = next(iter(tables.values()))
    return resized, (_window(old), _window(now))


def _window(positions: int) -> int:
    """A window of ``w x w`` tokens has ``(2 w - 1) ** 2`` relative positions."""
    return (isqrt(positions) + 1) // 2


def _fit_beit_tables(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> tuple[int, int] | None:
    if _SHARED_TABLE in state and _SHARED_TABLE not in own:
        shared = state.pop(_SHARED_TABLE)
        state |= {name: shared for name in own if name.endswith(f"attn.{TABLE}") and name not in state}
    windows = None
    for name, place in own.items():
        table = state.get(name)
        if table is None or not name.endswith(TABLE) or table.shape == place.shape or not _for_classes(place):
            continue
        if not _for_classes(table) or table.shape[1:] != place.shape[1:]:
            raise MTAdaptError(
                f"{name}: the checkpoint has the shape {tuple(table.shape)}, the model {tuple(place.shape)}; only the "
                "image size may differ, use the architecture of the checkpoint"
            )
        grid = resize_table(name, table[:-_CLASS_ENTRIES], place[:-_CLASS_ENTRIES])
        state[name] = torch.cat([grid, table[-_CLASS_ENTRIES:]])
        windows = _window(len(table) - _CLASS_ENTRIES), _window(len(place) - _CLASS_ENTRIES)
    return windows


def _for_classes(table: Tensor) -> bool:
    """Whether a table is of a square window and the class token."""
    positions = len(table) - _CLASS_ENTRIES
    return positions > 0 and isqrt(positions) ** 2 == positions


def _fit_embedding(backbone: nn.Module, given: Tensor, own: Mapping[str, Tensor]) -> Tensor:
    """The position embedding of a ViT: class token, token of distillation, and a square grid."""
    place = own[_VIT_EMBEDDING]
    if given.shape == place.shape:
        return given
    if given.dim() != 3:
        raise MTAdaptError(
            f"{_VIT_EMBEDDING}: the checkpoint has the shape {tuple(given.shape)}, the model {tuple(place.shape)}"
        )
    tokens = sum(name in own for name in _TOKENS)
    if getattr(backbone, "num_extra_tokens", tokens) == 0:
        tokens = 0
    grid = _grid(backbone, place, tokens)
    side = isqrt(given.shape[1])
    extra = given.shape[1] - side * side
    if given.shape[2] != place.shape[2] or extra > len(_TOKENS) or 0 < extra < tokens:
        raise MTAdaptError(
            f"{_VIT_EMBEDDING}: the checkpoint has the shape {tuple(given.shape)}, the model {tuple(place.shape)}; "
            "only square grids of the same channels with at most two extra tokens can be resized"
        )
    kept = given[:, :tokens] if extra else given.new_zeros(1, tokens, given.shape[2])
    embedding = torch.cat([kept, given[:, extra:]], dim=1)
    mode = getattr(backbone, "interpolate_mode", "bicubic")
    return resize_pos_embed(embedding, (side, side), grid, mode, tokens)


def _grid(backbone: nn.Module, place: Tensor, tokens: int) -> tuple[int, int]:
    grid = getattr(backbone, "patch_resolution", None) or getattr(backbone.patch_embed, "init_out_size", None)
    side = isqrt(place.shape[1] - tokens)
    return tuple(grid) if grid else (side, side)
