"""What came from a checkpoint, and what did not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Names that :meth:`LoadReport.as_dict` gives of a list.
FIRST = 5


@dataclass(frozen=True)
class LoadReport:
    """What came from a checkpoint.

    Args:
        source: of the checkpoint: a URL, a package or a file, without the folders of this machine.
        sha256: of the file.
        format: in words: whose names the file has, and behind which prefix.
        backbone: type of the backbone.
        matched: entries of the backbone that the file has; those that follow from its settings are not counted.
        missing: entries of the backbone that should be in the file and are not.
        unexpected: entries of the file that were not used; those behind the prefix stand without it.
        reshaped: entries of ``matched`` that were resized: position tables and embeddings.
        new: entries of the backbone that a pre-training need not have: norms of further outputs, adapters, a
            mask token.
        share: of the elements of the backbone's parameters and statistics that came from the file, without ``new``.
        windows: of the checkpoint and of the backbone, where tables of relative positions were resized.
    """

    source: str
    sha256: str
    format: str
    backbone: str
    matched: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    reshaped: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    share: float = 1.0
    windows: tuple[int, int] | None = None

    @property
    def share_of_entries(self) -> float:
        """Of the entries of the backbone that should be in the file, those that are."""
        return len(self.matched) / max(len(self.matched) + len(self.missing), 1)

    def __str__(self) -> str:
        """One line for the log."""
        total = len(self.matched) + len(self.missing) + len(self.new)
        line = f"{self.source}: {len(self.matched)} of {total} entries of {self.backbone} loaded"
        if self.reshaped:
            line += f", {some(self.reshaped)} of them resized"
        if self.windows:
            line += f" from window {self.windows[0]} to {self.windows[1]}"
        if self.missing:
            line += f"; MISSING, left as initialised: {some(self.missing)}"
        if self.new:
            line += f"; {self._kinds_of_new()} stay new: {some(self.new)}"
        if self.unexpected:
            line += f"; not used: {self.grouped()}"
        return f"{line}; {percent(self.share)} of the parameters, {self.format}, SHA-256 {self.sha256[:8]}"

    def grouped(self) -> str:
        """The entries that were not used, counted by the first part of their names."""
        counts = Counter(name.removeprefix("module.").split(".")[0] for name in self.unexpected)
        return ", ".join(f"{count} ({name})" for name, count in counts.items())

    def _kinds_of_new(self) -> str:
        kinds = {name.split(".")[0] for name in self.new}
        words = [word for word, kind in (("the mask token", "mask_token"), ("adapters", "adapters")) if kind in kinds]
        if kinds - {"mask_token", "adapters"}:
            words.append("norms of further outputs")
        return " and ".join(words)

    def table(self) -> str:
        """Several lines, for a terminal."""
        rows = [
            ("checkpoint", self.source),
            ("SHA-256", self.sha256),
            ("format", self.format),
            ("backbone", self.backbone),
            ("share", f"{percent(self.share)} of the parameters"),
            ("matched", str(len(self.matched))),
            ("missing", some(self.missing)),
            ("new", some(self.new)),
            ("reshaped", some(self.reshaped)),
            ("unexpected", f"{len(self.unexpected)}: {self.grouped()}" if self.unexpected else "0"),
        ]
        if self.windows:
            rows.append(("windows", f"{self.windows[0]} to {self.windows[1]}"))
        return "\n".join(f"{name:<12}{value}" for name, value in rows)

    def as_dict(self) -> dict[str, Any]:
        """Counts and the first names, for JSON."""
        lists = dict(missing=self.missing, unexpected=self.unexpected, reshaped=self.reshaped, new=self.new)
        return dict(
            source=self.source,
            sha256=self.sha256,
            format=self.format,
            backbone=self.backbone,
            share=self.share,
            windows=list(self.windows) if self.windows else None,
            matched=len(self.matched),
            **{name: len(names) for name, names in lists.items()},
            **{f"first_{name}": list(names[:FIRST]) for name, names in lists.items() if names},
        )


def percent(share: float) -> str:
    """A share of 1 is 100 %, and nothing less is."""
    return "100 %" if share >= 1 else f"{min(share * 100, 99.99):.2f} %"


def some(names: Sequence[str]) -> str:
    """Count and first name."""
    return f"{len(names)} ({names[0]}{', ...' if len(names) > 1 else ''})" if names else "0"
