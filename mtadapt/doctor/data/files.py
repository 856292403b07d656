"""Listing files, and reading a sample of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from mtadapt.doctor.finding import Finding, Status
from mtadapt.errors import MTAdaptError

#: Files of a folder that are read unless all are asked for, spread evenly.
SAMPLE = 60
#: Kinds of faults that are told of a folder.
KINDS = 3
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".tif")

Item = TypeVar("Item")


def list_files(folder: Path, suffixes: Sequence[str] = IMAGES) -> dict[str, Path]:
    """Return stem to path of the files with one of the suffixes, sorted; empty where the folder is missing."""
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if entry.name.lower().endswith(tuple(suffixes)))
    return {name.rpartition(".")[0]: folder / name for name in names}


def choose(items: Sequence[Item], check_all: bool) -> list[Item]:
    """Return all items, or :data:`SAMPLE` of them, evenly spread with the first and the last."""
    if check_all or len(items) <= SAMPLE:
        return list(items)
    return [items[number * (len(items) - 1) // (SAMPLE - 1)] for number in range(SAMPLE)]


def read_sample(
    name: str, what: str, items: Sequence[Item], check_all: bool, read: Callable[[Item], object]
) -> list[Finding]:
    """Read files and tell the first fault of each kind, at most :data:`KINDS` of them.

    Args:
        name: first column of the finding.
        what: what the items are, such as ``images``.
        items: what ``read`` is called with.
        check_all: read all, not a sample.
        read: raises an :class:`~mtadapt.errors.MTAdaptError` for an item that cannot be used.
    """
    chosen = choose(items, check_all)
    faults: dict[str, list[str]] = {}
    for item in chosen:
        try:
            read(item)
        except MTAdaptError as error:
            # Faults of one kind have one remedy.
            detail, remedy = split_message(str(error))
            faults.setdefault(remedy, []).append(detail)
    if not faults:
        part = len(chosen) < len(items)
        read_in_part = f"{len(chosen):,} of {len(items):,} {what} read, all in order"
        return [Finding("data", name, "ok", read_in_part, sampled=part)]
    return [
        Finding(
            "data",
            name,
            "problem",
            f"{len(details):,} of {len(chosen):,} {what} read cannot be used; first: {details[0]}",
            remedy,
            sampled=len(chosen) < len(items),
        )
        for remedy, details in list(faults.items())[:KINDS]
    ]


def split_message(message: str) -> tuple[str, str]:
    """Return reason and remedy of an error's message, which ends with the remedy behind a semicolon."""
    detail, _, remedy = message.rpartition("; ")
    return (detail, remedy) if detail else (message, "correct the file, or copy it again")


def missing_files(name: str, what: str, missing: Sequence[str], total: int, remedy: str) -> list[Finding]:
    """Tell how many files lack, with the first one; nothing where none does."""
    if not missing:
        return []
    status: Status = "problem" if len(missing) == total else "warning"
    return [Finding("data", name, status, f"{len(missing):,} of {total:,} {what}; first: {missing[0]}", remedy)]
