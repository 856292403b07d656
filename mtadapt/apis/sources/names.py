"""Names of outputs: the stems of the inputs, with folders where stems are not enough."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mtadapt.errors import MTAdaptError

if TYPE_CHECKING:
    from mtadapt.apis.sources.entries import Entry

#: As the reader numbers the frames of videos.
_FRAME = re.compile(r"(.+)_(\d{6}|[1-9]\d{6,})")


def distinct_names(entries: Sequence[Entry]) -> list[Entry]:
    """Give files folders in their names where outputs would overwrite each other otherwise.

    The folders are those below the one that the clashing files have in common: ``a/0001`` and ``b/0001``. The other
    files below it are named alike.
    """
    clashing = [entry for first, second, _ in _clashes(entries) for entry in (first, second) if _is_local(entry)]
    if not clashing:
        return list(entries)
    try:
        base = os.path.commonpath([_folder(entry) for entry in clashing])
    except ValueError:
        # On two drives; check_names refuses them.
        return list(entries)
    return [_with_folders(entry, base) for entry in entries]


def check_names(entries: Sequence[Entry], flat: bool = False) -> None:
    """Refuse entries whose outputs would overwrite each other.

    Args:
        entries: those of :func:`~mtadapt.apis.sources.expand_inputs`.
        flat: whether an output without folders is written: the BDD100K submission.

    Raises:
        MTAdaptError: when two have one name, or a video has a frame of another's name.
    """
    for first, second, name in _clashes(entries):
        raise MTAdaptError(
            f"{first} and {second}: their outputs would both be named {name!r}; rename one, or give them in two calls "
            "with another out_dir (--out-dir) each"
        )
    stems = [entry._replace(name=entry.name.rpartition("/")[2]) for entry in entries] if flat else []
    for first, second, name in _clashes(stems):
        raise MTAdaptError(
            f"{first} and {second}: both would be {name!r} in BDD100K's submission (--submission), which has no "
            "folders; give them in two calls with another out_dir (--out-dir) each"
        )


def _clashes(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Entry, str]]:
    """Pairs of entries, and the name that outputs of both would have."""
    known: dict[str, Entry] = {}
    for entry in entries:
        if entry.name in known:
            yield known[entry.name], entry, entry.name
        else:
            known[entry.name] = entry
    for entry in entries:
        numbered = _FRAME.fullmatch(entry.name) if entry.kind in ("image", "array") else None
        video = known.get(numbered[1]) if numbered else None
        if video is not None and video.kind in ("video", "camera"):
            yield video, entry, entry.name


def _is_local(entry: Entry) -> bool:
    return entry.kind in ("image", "video") and not entry.remote


def _folder(entry: Entry) -> str:
    return os.path.dirname(os.path.abspath(entry.location))


def _with_folders(entry: Entry, base: str) -> Entry:
    if not _is_local(entry) or not Path(_folder(entry)).is_relative_to(base):
        return entry
    return entry._replace(name=Path(_folder(entry)).relative_to(base).joinpath(entry.name).as_posix())
