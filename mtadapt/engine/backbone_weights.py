"""The backbone of one model starts from that of another one's checkpoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path

from mmengine.logging import print_log
from torch import Tensor, nn

from mtadapt.engine.checkpoints import load_weights, newest_whole_checkpoint
from mtadapt.errors import MTAdaptError
from mtadapt.models.relative_position import resize_absolute, resize_tables

#: What may stand before the names of the backbone, tried in this order.
PREFIXES = ("backbone.", "module.backbone.", "", "module.")

# Buffers that follow from the window of the model, those that are computed today, and norms of output levels.
_DERIVED = ("relative_position_index", "relative_coords_table")
_OBSOLETE = "attn_mask"
_OUTPUT_NORM = re.compile(r"norm\d+\.(weight|bias)")
_ABSOLUTE = "absolute_pos_embed"


@dataclass(frozen=True)
class LoadedBackbone:
    """What came from a checkpoint.

    Args:
        path: of the file.
        backbone: type of the backbone.
        loaded: entries of the backbone that the file has; those that follow from its settings are not counted.
        resized: names of the position tables and embeddings that were resized here.
        windows: of the checkpoint and of the backbone, where tables were resized.
        new: entries of the backbone that stay as they were: norms of further outputs, a mask token.
        unused: entries of the file that the backbone does not have.
    """

    path: Path
    backbone: str
    loaded: int
    resized: Sequence[str] = ()
    windows: tuple[int, int] | None = None
    new: Sequence[str] = ()
    unused: Sequence[str] = ()

    def __str__(self) -> str:
        """One line for the log."""
        line = f"{self.path}: {self.loaded} of {self.loaded + len(self.new)} entries of {self.backbone} loaded"
        if self.resized:
            line += f", {_some(self.resized)} of them resized"
        if self.windows:
            line += f" from window {self.windows[0]} to {self.windows[1]}"
        if self.new:
            what = "the mask token stays" if [*self.new] == ["mask_token"] else "norms of further outputs stay"
            line += f"; {what} new: {_some(self.new)}"
        if self.unused:
            line += f"; not used: {_some(self.unused)}"
        return line


def load_backbone(backbone: nn.Module, path: str | Path, prefix: str | None = None) -> LoadedBackbone:
    """Load the weights of a backbone from the checkpoint of another model, for other windows and image sizes too.

    The tables of relative positions of Swin Transformers are resized, and absolute position embeddings, either here or
    by mmpretrain's own hooks. Nothing that the file holds is executed.

    Every entry of the backbone has to come from the file, but for a mask token and the norms of output levels that the
    pre-training did not have: a backbone trained with ``out_indices=(3,)`` has ``norm3`` alone, and ``norm0`` to
    ``norm2`` of a detector stay as they are. Entries that the backbone does not have, as the mask token of a
    pre-training, are counted.

    Args:
        backbone: of mmpretrain, mmdet, mmseg or this package, with the names of the checkpoint's one.
        path: a checkpoint, or the folder of a training, whose newest whole checkpoint is taken.
        prefix: what stands before the backbone's names in the file; by default that of :data:`PREFIXES` which finds
            most of them. Ours: a momentum encoder is found by its prefix alone.

    Returns:
        What was loaded, resized, left new and not used; logged in one line too.

    Raises:
        MTAdaptError: when there is no such file, or it is the checkpoint of another backbone. The backbone then may
            be loaded in part.
    """
    path = _file(path)
    state = _entries(backbone, path, prefix)
    own = backbone.state_dict()
    for name in list(state):
        if name.endswith(_OBSOLETE):
            del state[name]
        elif name.endswith(_DERIVED) and name in own:
            state[name] = own[name]
    try:
        tables = resize_tables(state, own)
        resized = [*tables, *_resize_absolute(backbone, state, own)]
        missing, unused = backbone.load_state_dict(state, strict=False)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise _other(backbone, path, _mismatch(error)) from error
    missing = [name for name in missing if not name.endswith(_DERIVED)]
    _check(backbone, path, missing, unused, state)
    old, now = next(iter(tables.values()), (0, 0))
    loaded = LoadedBackbone(
        path,
        type(backbone).__name__,
        sum(not name.endswith(_DERIVED) for name in own) - len(missing),
        resized,
        ((isqrt(old) + 1) // 2, (isqrt(now) + 1) // 2) if tables else None,
        missing,
        unused,
    )
    print_log(str(loaded), logger="current")
    return loaded


def _file(path: str | Path) -> Path:
    if "://" in str(path):
        raise MTAdaptError(f"{path}: give a file; download the checkpoint first")
    if Path(path).is_dir():
        newest = newest_whole_checkpoint(path)
        if newest is None:
            raise MTAdaptError(f"{path}: no checkpoint in this folder; give a file, or train that model first")
        return Path(newest)
    return Path(path)


def _entries(backbone: nn.Module, path: Path, prefix: str | None) -> dict[str, Tensor]:
    """The entries of the file behind the prefix, without it."""
    weights = load_weights(path)
    own = backbone.state_dict().keys()
    candidates = {
        start: {name[len(start) :]: value for name, value in weights.items() if name.startswith(start)}
        for start in (PREFIXES if prefix is None else (prefix,))
    }
    best = max(candidates, key=lambda start: len(own & candidates[start].keys()))
    if not own & candidates[best].keys():
        behind = " or ".join(repr(start) for start in candidates)
        first, given = next(iter(own), "nothing"), next(iter(weights))
        raise _other(backbone, path, f"{first} is not there behind {behind}, the file begins with {given}")
    return candidates[best]


def _resize_absolute(backbone: nn.Module, state: dict[str, Tensor], own: dict[str, Tensor]) -> list[str]:
    """Resize the absolute position embedding of a Swin Transformer in place; that of a ViT is left to its own hook."""
    if _ABSOLUTE not in state or _ABSOLUTE not in own or state[_ABSOLUTE].shape == own[_ABSOLUTE].shape:
        return []
    grid = getattr(backbone, "patch_resolution", None)
    state[_ABSOLUTE] = resize_absolute(_ABSOLUTE, state[_ABSOLUTE], own[_ABSOLUTE], grid)
    return [_ABSOLUTE]


def _check(
    backbone: nn.Module, path: Path, missing: Sequence[str], unused: Sequence[str], state: dict[str, Tensor]
) -> None:
    """Refuse what a checkpoint of the same backbone cannot lack or have."""
    levels = {name.split(".")[0] for name in state if _OUTPUT_NORM.fullmatch(name)}
    for name in missing:
        if name == "mask_token":
            continue
        if not levels or not _OUTPUT_NORM.fullmatch(name) or name.split(".")[0] in levels:
            raise _other(backbone, path, f"{name} is not in the file")
    children = {name.split(".")[0] for name in backbone.state_dict()}
    for name in unused:
        # A deeper backbone has further blocks in the same children; a mask token stands beside them.
        if name.split(".")[0] in children:
            raise _other(backbone, path, f"the file's {name} is not in the model")


def _mismatch(error: Exception) -> str:
    """The first mismatch in the message of an error; PyTorch puts it on the second line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = next((line for line in lines if line.startswith("size mismatch")), lines[0] if lines else repr(error))
    return first.split(";")[0]


def _other(backbone: nn.Module, path: Path, mismatch: str) -> MTAdaptError:
    return MTAdaptError(
        f"{path}: the checkpoint of another backbone than this {type(backbone).__name__}: {mismatch.rstrip('.')}; give "
        "the backbone the type, depth and width of the checkpoint's"
    )


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({names[0]}{', ...' if len(names) > 1 else ''})"
