"""A backbone's checkpoint in the names of another library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isqrt

from mmpretrain.models.utils import WindowMSA
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.relative_position import TABLE
from mtadapt.zoo.formats.naming import Naming, renamed
from mtadapt.zoo.formats.recognise import NAMINGS, SAME, prefixes
from mtadapt.zoo.formats.vit import MMSEG

#: What a checkpoint can be converted to; ``mm`` are the names of mmpretrain, which mmdet and mmseg share.
LIBRARIES = ("timm", "torchvision", "mm")

_INDEX = "relative_position_index"
# What another library need not have a place for: norms of outputs, and what is no parameter of the backbone.
_SPARE = re.compile(rf"norm\d+\.\w+|mask_token|.*\.({_INDEX}|attn_mask)")


@dataclass(frozen=True)
class Converted:
    """A checkpoint in other names.

    Args:
        state: the entries.
        source: whose names the file has, and behind which prefix.
        family: of the backbone.
        left_out: entries of the file that are not in ``state``, without the prefix where they have it.
    """

    state: dict[str, Tensor]
    source: str
    family: str
    left_out: tuple[str, ...]


def convert(weights: Mapping[str, Tensor], to: str, prefix: str | None = None) -> Converted:
    """Give the backbone of a checkpoint in the names, and the order of values, of another library.

    Whose names the file has is recognised from as many of its entries as possible. Heads are left out. Indices of
    relative positions, which timm computes and the others store, are left out or made.

    Args:
        weights: of the file.
        to: one of :data:`LIBRARIES`.
        prefix: what stands before the names of the backbone; found by default.

    Raises:
        MTAdaptError: when the names are of no known backbone, or the other library has no place for some of it.
    """
    best: tuple[int, str, Naming, bool] | None = None
    for start in prefixes(weights) if prefix is None else (prefix,):
        names = [name[len(start) :] for name in weights if name.startswith(start)]
        for count, naming, theirs in _counts(names):
            if best is None or count > best[0]:
                best = (count, start, naming, theirs)
    if best is None or not best[0]:
        raise MTAdaptError(f"the names are of no known backbone, the first is {next(iter(weights))}; give its prefix")
    _, start, naming, theirs = best
    inner = {name[len(start) :]: value for name, value in weights.items() if name.startswith(start)}
    ours, taken = _ours(inner, naming, theirs)
    source = f"{naming.title if theirs else SAME.title} {f'behind {start!r}' if start else 'without a prefix'}"
    state = _theirs(ours, naming.family, to, source)
    left_out = [name.removeprefix(start) for name in weights if name.removeprefix(start) not in taken]
    return Converted(state, source, naming.family, tuple(left_out))


def _counts(names: list[str]) -> Iterator[tuple[int, Naming, bool]]:
    """How many names each library knows, and how many are those of mmpretrain for its family."""
    for naming in NAMINGS:
        if naming not in (SAME, MMSEG):
            yield len(naming.to_ours(names)), naming, True
            if naming.library:
                yield len(naming.to_theirs(names)), naming, False


def _ours(inner: Mapping[str, Tensor], naming: Naming, theirs: bool) -> tuple[dict[str, Tensor], set[str]]:
    """The entries under the names of mmpretrain, and what they are called in the file."""
    if theirs:
        entries = naming.to_ours(inner)
        return renamed(inner, entries), set(entries)
    places = naming.to_theirs(inner)
    known = {name: value for name, value in inner.items() if name in places or _SPARE.fullmatch(name)}
    return known, set(known)


def _theirs(ours: dict[str, Tensor], family: str, to: str, source: str) -> dict[str, Tensor]:
    if to == "timm":
        ours = {name: value for name, value in ours.items() if not name.endswith((_INDEX, "attn_mask"))}
    else:
        ours = {
            name: value for name, value in (ours | _indices(ours, family)).items() if not name.endswith("attn_mask")
        }
    if to == "mm":
        return ours
    target = next((naming for naming in NAMINGS if to in naming.library.split() and naming.family == family), None)
    if target is None:
        raise MTAdaptError(f"{source}: {to} has no {family}; convert it to another library")
    places = target.to_theirs(name for name in ours if name != "mask_token")
    homeless = [name for name in ours if name not in places and not _SPARE.fullmatch(name)]
    if homeless:
        raise MTAdaptError(
            f"{source}: {to} has no place for {homeless[0]} and {len(homeless) - 1} further entries of this {family}; "
            "convert it to another library"
        )
    return renamed(ours, places)


def _indices(ours: Mapping[str, Tensor], family: str) -> dict[str, Tensor]:
    """The index of every table of a Swin Transformer, which depends on the window alone."""
    made = {}
    for name, table in ours.items():
        index = name.replace("relative_position_bias_table", _INDEX)
        if family == "Swin" and name.endswith(TABLE) and index not in ours:
            window = (isqrt(len(table)) + 1) // 2
            made[index] = WindowMSA(embed_dims=1, window_size=(window, window), num_heads=1).relative_position_index
    return made
