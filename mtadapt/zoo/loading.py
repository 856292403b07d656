"""The backbone of one model starts from the checkpoint of any other library."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.zoo.files import CheckpointFile, fetch, read_state
from mtadapt.zoo.formats import Recognised, recognise
from mtadapt.zoo.load_report import LoadReport, percent
from mtadapt.zoo.positions import fit_positions

#: Share of a backbone that a checkpoint has to have.
MIN_MATCH = 0.98

# Buffers that follow from the settings of the model, those that old files lack, those that are computed today, and
# norms of output levels.
_DERIVED = ("relative_position_index", "relative_coords_table")
_COUNTER = "num_batches_tracked"
_OBSOLETE = "attn_mask"
_OUTPUT_NORM = re.compile(r"norm\d+\.(weight|bias)")
# Of mtadapt.models.adapt_backbone.
_ADAPTERS = "adapters."
# Without these a backbone does not compute what that of the checkpoint does.
_NEEDED = ("pre_norm", "pos_embed", "absolute_pos_embed", "register_tokens", "rel_pos_bias")
# And these are its first layers, a small part of it that everything else depends on.
_FIRST = (*_NEEDED, "stem", "conv1", "bn1", "patch_embed", "cls_token")


def load_backbone(
    path_or_url: str | Path,
    backbone: nn.Module,
    *,
    prefix: str | None = None,
    min_match: float = MIN_MATCH,
    sha256: str | None = None,
    trust_checkpoint: bool = False,
) -> LoadReport:
    """Load the weights of a backbone from a checkpoint of any public format, or leave it as it is.

    Which format a file has is recognised from its names and shapes, see :mod:`mtadapt.zoo.formats`. Tables of relative
    positions and absolute position embeddings are resized to the windows and the image size of the backbone.

    What a pre-training need not have is new by design and not counted: a mask token, adapters, and norms of output
    levels that it did not give; a Swin Transformer trained with ``out_indices=(3,)`` has ``norm3`` alone, and
    ``norm0`` to ``norm2`` of a detector stay as they are.

    Args:
        path_or_url: see :func:`mtadapt.zoo.files.fetch`.
        backbone: of mmpretrain, mmdet, mmseg or this package.
        prefix: what stands before the backbone's names in the file, found by default. A momentum encoder is found by
            its prefix alone.
        min_match: share of the backbone that has to be in the file, of its elements and, ours, of its entries, because
            norms and biases are few elements. Ours: first layers and position embeddings may lack with a smaller
            value than the default alone. Whatever the share is, an entry of another shape or type, and one that the
            backbone would need to compute what the checkpoint's does, are refused.
        sha256: of the file, see :func:`mtadapt.zoo.files.fetch`.
        trust_checkpoint: run the code that the file may hold, see :func:`mtadapt.zoo.files.read_state`.

    Returns:
        What was loaded, resized, left as it was, and not used; logged in one line too, as a warning where entries are
        missing.

    Raises:
        MTAdaptError: when there is no such file, it cannot be read, or it is the checkpoint of another backbone. The
            backbone then is as it was.
    """
    file = fetch(path_or_url, sha256)
    weights = read_state(file.path, trust_checkpoint)
    own = backbone.state_dict()
    found = recognise(weights, own, prefix)
    if found is None:
        behind = "behind any known prefix" if prefix is None else f"behind {prefix!r}"
        raise _other(backbone, file, f"{_first(own)} is not there {behind}, the file begins with {next(iter(weights))}")
    state = _place(found.state, own)
    before = {name: value.clone() for name, value in own.items()}
    try:
        reshaped, windows = fit_positions(backbone, state, own)
        _check_shapes(state, own)
        missing, unused = backbone.load_state_dict(state, strict=False)
        report = _report(file, backbone, found, missing, unused, reshaped, windows)
        _check(backbone, file, report, unused, min_match)
    except (RuntimeError, AssertionError, ValueError) as error:
        _restore(own, before)
        raise error if isinstance(error, _RefusedError) else _other(backbone, file, _mismatch(error), found) from error
    level = logging.WARNING if report.missing else logging.INFO
    print_log(str(report), logger="current", level=level)
    return report


class _RefusedError(MTAdaptError):
    """The message is complete."""


def _place(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries that count, with the model's own ones where they follow from its settings."""
    state = {name: value for name, value in found.items() if not name.endswith((_OBSOLETE, *_DERIVED))}
    return state | {name: own[name] for name in found if name.endswith(_DERIVED) and name in own}


def _check_shapes(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    """Before anything is copied; the words are PyTorch's."""
    for name, value in state.items():
        if name not in own:
            continue
        if value.shape != own[name].shape:
            raise ValueError(f"size mismatch for {name}: {_shape(value)} in the file, {_shape(own[name])} in the model")
        if own[name].is_floating_point() and not value.is_floating_point():
            raise ValueError(f"{name} is {str(value.dtype).removeprefix('torch.')} in the file")
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} has values in the file that are not finite")


def _shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape)) or "a number"


def _report(
    file: CheckpointFile,
    backbone: nn.Module,
    found: Recognised,
    missing: Sequence[str],
    unused: Iterable[str],
    reshaped: tuple[str, ...],
    windows: tuple[int, int] | None,
) -> LoadReport:
    own = {name: value for name, value in backbone.state_dict().items() if not name.endswith(_DERIVED)}
    own = {name: value for name, value in own.items() if not (name.endswith(_COUNTER) and name in missing)}
    levels = {name.split(".")[0] for name in found.state if _OUTPUT_NORM.fullmatch(name)}
    lacking = [name for name in missing if name in own]
    new = [name for name in lacking if _new(name, levels)]
    counted = {name: value.numel() for name, value in own.items() if name not in new}
    matched = [name for name in own if name not in lacking]
    return LoadReport(
        source=_public(file.source),
        sha256=file.sha256,
        format=found.format,
        backbone=type(backbone).__name__,
        matched=tuple(matched),
        missing=tuple(name for name in lacking if name not in new),
        unexpected=(*unused, *found.others),
        reshaped=reshaped,
        new=tuple(new),
        share=sum(counted[name] for name in matched) / max(sum(counted.values()), 1),
        windows=windows,
    )


def _new(name: str, levels: set[str]) -> bool:
    """Whether the backbone of a pre-training need not have this entry; ``levels`` are the output norms that it has."""
    if name == "mask_token" or name.startswith(_ADAPTERS):
        return True
    return bool(levels and _OUTPUT_NORM.fullmatch(name) and name.split(".")[0] not in levels)


def _check(
    backbone: nn.Module, file: CheckpointFile, report: LoadReport, unused: Sequence[str], min_match: float
) -> None:
    """Refuse what a checkpoint of the same backbone cannot lack or have."""
    if report.share < min_match:
        raise _other(backbone, file, f"{report.missing[0]} is not in the file", report=report, min_match=min_match)
    own = backbone.state_dict()
    inside = {*_NEEDED, *(name for name, _ in backbone.named_children()), *(name.split(".")[0] for name in own)}
    if "cls_token" in own:
        inside.add("dist_token")
    for name in unused:
        # A deeper backbone has further blocks in the same children; a mask token stands beside them.
        if name.split(".")[0] in inside:
            raise _other(backbone, file, f"the file's {name} is not in the model", report=report)
    first = [name for name in report.missing if min_match >= MIN_MATCH and name.split(".")[0] in _FIRST]
    if report.share_of_entries < min_match or first:
        name = (first or report.missing)[0]
        raise _other(backbone, file, f"{name} is not in the file", report=report, min_match=min_match)


def _restore(own: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(before[name])


def _first(own: Mapping[str, Tensor]) -> str:
    return next(iter(own), "any entry")


def _mismatch(error: Exception) -> str:
    """The first mismatch in the message of an error; PyTorch puts it on the second line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = next((line for line in lines if line.startswith("size mismatch")), lines[0] if lines else repr(error))
    return first.split(";")[0]


def _other(
    backbone: nn.Module,
    file: CheckpointFile,
    mismatch: str,
    found: Recognised | None = None,
    report: LoadReport | None = None,
    min_match: float | None = None,
) -> MTAdaptError:
    details = [found.format] if found else [report.format] if report else []
    if report and min_match is not None:
        entries = f" and {percent(report.share_of_entries)} of the entries" if report.share >= min_match else ""
        details.append(f"{percent(report.share)} of the parameters{entries} match, {percent(min_match)} must")
    inside = f" ({'; '.join(details)})" if details else ""
    return _RefusedError(
        f"{file.source}: the checkpoint of another backbone than this {type(backbone).__name__}: "
        f"{mismatch.rstrip('.')}{inside}; give the backbone the type, depth and width of the checkpoint's"
    )


def _public(source: str) -> str:
    """A source without the folders of this machine: relative to the working directory, or the name alone."""
    if "://" in source or not Path(source).is_absolute():
        return source
    path = Path(source)
    return path.relative_to(Path.cwd()).as_posix() if path.is_relative_to(Path.cwd()) else path.name
