"""One line of the doctor's table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and what to do about it.

    Attributes:
        area: part of the table: ``python``, ``packages``, ``imports``, ``device``, ``machine``, ``extras`` or ``data``.
        name: what was looked at.
        status: ``ok``; ``warning``: works, with a loss; ``problem``: something does not work.
        detail: versions, counts or the reason, on one line.
        remedy: what to do, mostly a command; empty where there is nothing to do.
        sampled: whether there are more files than were read.
    """

    area: str
    name: str
    status: Status
    detail: str
    remedy: str = ""
    sampled: bool = False
