"""Names of Swin Transformers, and the order of the four pixels that become one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor

from mtadapt.zoo.formats.naming import Change, Entry, Naming, Rule, same

_STAGES = 4
# The official models put the pixels of a 2 x 2 patch one behind the other column by column, mmcv's unfold has them row
# by row inside each channel.
_ORDER = (0, 2, 1, 3)


def _unfolded(value: Tensor) -> Tensor:
    """``(..., 4 C)`` of the official models to mmcv's order."""
    return value.unflatten(-1, (4, -1))[..., _ORDER, :].transpose(-1, -2).flatten(-2).contiguous()


def _folded(value: Tensor) -> Tensor:
    """The way back."""
    return value.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., _ORDER, :].flatten(-2).contiguous()


_MERGED = Change(_unfolded, _folded)
# torchvision's index is flat.
_INDEX = Change(lambda value: value.view(int(value.numel() ** 0.5), -1), lambda value: value.flatten())


def _block(theirs: str, ours: str, first: str, second: str) -> tuple[Rule, ...]:
    return (
        *(Rule(f"{theirs}.{norm}.{{p}}", f"{ours}.{norm}.{{p}}") for norm in ("norm1", "norm2")),
        Rule(f"{theirs}.attn.{{rest}}", f"{ours}.attn.w_msa.{{rest}}"),
        Rule(f"{theirs}.mlp.{first}.{{p}}", f"{ours}.ffn.layers.0.0.{{p}}"),
        Rule(f"{theirs}.mlp.{second}.{{p}}", f"{ours}.ffn.layers.1.{{p}}"),
    )


def _merging(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{theirs}.reduction.weight", f"{ours}.reduction.weight", _MERGED),
        Rule(f"{theirs}.norm.{{p}}", f"{ours}.norm.{{p}}", _MERGED),
    )


_TIMM = (
    *_block("layers.{n}.blocks.{b}", "stages.{n}.blocks.{b}", "fc1", "fc2"),
    Rule("patch_embed.proj.{p}", "patch_embed.projection.{p}"),
    *same("patch_embed.norm.{p}", "absolute_pos_embed", "mask_token", "norm.{p}", "norm{n}.{p}"),
)
_TORCHVISION = (
    Rule("features.0.0.{p}", "patch_embed.projection.{p}"),
    Rule("features.0.2.{p}", "patch_embed.norm.{p}"),
    *(
        rule
        for stage in range(_STAGES)
        for rule in (
            Rule(
                f"features.{2 * stage + 1}.{{b}}.attn.relative_position_index",
                f"stages.{stage}.blocks.{{b}}.attn.w_msa.relative_position_index",
                _INDEX,
            ),
            *_block(f"features.{2 * stage + 1}.{{b}}", f"stages.{stage}.blocks.{{b}}", "0", "3"),
            *_merging(f"features.{2 * stage + 2}", f"stages.{stage}.downsample"),
        )
    ),
    *same("norm.{p}"),
)


class _SwinNaming(Naming):
    """The last norm is called after its stage in mmpretrain. The second version is another network, and not known."""

    def to_ours(self, names: Iterable[str]) -> dict[str, Entry]:
        names = list(names)
        if any(name.endswith("attn.logit_scale") for name in names):
            return {}
        found = super().to_ours(names)
        last = f"norm{max((_stage(entry.name) for entry in found.values()), default=0)}."
        return {
            name: replace(entry, name=last + entry.name[5:]) if entry.name.startswith("norm.") else entry
            for name, entry in found.items()
        }

    def to_theirs(self, names: Iterable[str]) -> dict[str, Entry]:
        names = list(names)
        last = f"norm{max(map(_stage, names), default=0)}."
        general = {("norm." + name[len(last) :] if name.startswith(last) else name): name for name in names}
        # The norms of other outputs are those of detectors alone, which read them by the same names.
        general = {name: own for name, own in general.items() if not re.match(r"norm\d", name)}
        return {general[name]: entry for name, entry in super().to_theirs(general).items()}


def _stage(name: str) -> int:
    parts = name.split(".")
    return int(parts[1]) if parts[0] == "stages" else 0


NAMINGS = (
    _SwinNaming(
        "timm names",
        (
            *(
                rule
                for n in range(1, _STAGES)
                for rule in _merging(f"layers.{n}.downsample", f"stages.{n - 1}.downsample")
            ),
            *_TIMM,
        ),
        library="timm",
        family="Swin",
    ),
    _SwinNaming(
        "official names (timm before 0.9)",
        (*_merging("layers.{n}.downsample", "stages.{n}.downsample"), *_TIMM),
        family="Swin",
    ),
    _SwinNaming("torchvision names", _TORCHVISION, library="torchvision", family="Swin"),
)
