"""How numbers are written in the report, for Markdown and for the page alike."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from mtadapt.zoo.report.statistics import PairedTest, Summary

#: Stands where there is no number.
NOTHING = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"


def number(value: float | None, digits: int = 1, *, sign: bool = False) -> str:
    """Round to ``digits`` decimals, with a real minus sign."""
    if value is None:
        return NOTHING
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if not text.strip("+-0."):
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def spread(summary: Summary, seeds: int, *, sign: bool = False) -> str:
    """Mean and standard deviation; with the number of seeds where these are not all ``seeds``."""
    if not summary.count:
        return NOTHING
    deviation = "" if summary.deviation is None else f" ± {summary.deviation:.1f}"
    few = "" if summary.count == seeds else f" (n={summary.count})"
    return f"{number(summary.mean, sign=sign)}{deviation}{few}"


def hours(value: float | None) -> str:
    """Hours, with two or three significant digits."""
    if value is None:
        return NOTHING
    if value >= 10:
        return f"{value:.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.2f}" if value >= 1 else f"{value:#.3g}" if value >= 0.1 else f"{value:#.2g}"


def count(value: int) -> str:
    """A number of parameters, as 4.68 M."""
    for size, unit in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value / size:.0f} {unit}"
    return str(value) if value else NOTHING


def stages(trainable: Mapping[str, int]) -> str:
    """Parameters that train, for each stage; an ordinary run has one and needs no name for it."""
    if set(trainable) <= {"train"}:
        return count(trainable.get("train", 0))
    return ", ".join(f"{stage} {count(size)}" for stage, size in trainable.items())


def p_value(p: float | None) -> str:
    """A p value with two significant digits."""
    if p is None:
        return NOTHING
    if p < 0.001:
        return "< 0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def interval(test: PairedTest) -> str:
    """The 95 % interval of a mean difference."""
    if test.low is None or test.high is None:
        return NOTHING
    return f"{number(test.low, sign=True)} to {number(test.high, sign=True)}"


def link(cell_file: Path, name: str, out: Path) -> str:
    """Address of a file beside a result, relative to the report; empty where there is no such file."""
    target = cell_file.resolve().parent / name
    if not name or not target.is_file():
        return ""
    return quote(Path(os.path.relpath(target, out.resolve())).as_posix())
