"""The findings as a table or as JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict

from mtadapt.doctor.finding import Finding

MARKS = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}
_COLOURS = {"ok": "32", "warning": "33", "problem": "31"}


def as_json(findings: Sequence[Finding]) -> str:
    """Return ``{"problems": 1, "warnings": 0, "findings": [{area, name, status, detail, remedy, sampled}, ...]}``."""
    document = dict(
        problems=sum(one.status == "problem" for one in findings),
        warnings=sum(one.status == "warning" for one in findings),
        findings=[asdict(one) for one in findings],
    )
    return json.dumps(document, indent=2)


def as_table(findings: Sequence[Finding], width: int = 120, colour: bool = False) -> str:
    """Return the table: area, name, status, detail, and the remedy below what is not in order."""
    areas, names = max(len(one.area) for one in findings), min(24, max(len(one.name) for one in findings))
    indent = areas + names + max(map(len, MARKS.values())) + 6
    lines = []
    previous = ""
    for one in findings:
        mark = MARKS[one.status].ljust(7)
        mark = f"\033[{_COLOURS[one.status]}m{mark}\033[0m" if colour else mark
        head = f"{'' if one.area == previous else one.area:<{areas}}  {one.name:<{names}}  {mark}  "
        if one.area != previous and previous:
            lines.append("")
        lines.append(head + _wrapped(one.detail, width, indent))
        if one.remedy and one.status != "ok":
            # A command stays on one line, so that it can be copied.
            lines.append(" " * indent + f"-> {one.remedy}")
        previous = one.area
    return "\n".join([*lines, "", summary(findings)])


def summary(findings: Sequence[Finding]) -> str:
    """Return the last line."""
    problems = sum(one.status == "problem" for one in findings)
    warnings = sum(one.status == "warning" for one in findings)
    sampled = any(one.sampled for one in findings)
    more = " Of the data a sample of files was read: --all reads every one." if sampled else ""
    if not problems and not warnings:
        return ("What was looked at is in order." if sampled else "Everything is in order.") + more
    counted = [
        f"{number} {word}{'s'[: number != 1]}"
        for number, word in ((problems, "problem"), (warnings, "warning"))
        if number
    ]
    return f"{' and '.join(counted)}; the line behind each arrow (->) mends it.{more}"


def _wrapped(text: str, width: int, indent: int) -> str:
    wrapped = textwrap.wrap(text, max(40, width - indent), break_long_words=False, break_on_hyphens=False)
    return ("\n" + " " * indent).join(wrapped)
