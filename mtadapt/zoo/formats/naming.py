"""How a library names the entries of a backbone, as a table that can be read in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

#: What the placeholders of a template stand for: a number, the last part of a name, and the rest of it.
_PLACEHOLDERS = dict(n=r"\d+", b=r"\d+", c=r"\d+", p=r"\w+", rest=r".+")


@dataclass(frozen=True)
class Change:
    """How the values differ between two namings.

    Args:
        to_ours: values of the other library to those of mmpretrain.
        to_theirs: the way back, bit for bit.
    """

    to_ours: Callable[[Tensor], Tensor]
    to_theirs: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rule:
    """One line of the table, with placeholders ``{n}``, ``{b}``, ``{c}``, ``{p}`` and ``{rest}``.

    Args:
        theirs: name in the other library.
        ours: name in mmpretrain.
        change: of the value, if any.
    """

    theirs: str
    ours: str
    change: Change | None = None

    @cached_property
    def _from_theirs(self) -> re.Pattern:
        return _pattern(self.theirs)

    @cached_property
    def _from_ours(self) -> re.Pattern:
        return _pattern(self.ours)

    def our_name(self, name: str) -> str | None:
        """The name in mmpretrain, or None where the rule is about other names."""
        found = self._from_theirs.fullmatch(name)
        return self.ours.format(**found.groupdict()) if found else None

    def their_name(self, name: str) -> str | None:
        """The name in the other library, or None where the rule is about other names."""
        found = self._from_ours.fullmatch(name)
        return self.theirs.format(**found.groupdict()) if found else None


@dataclass(frozen=True)
class Entry:
    """An entry of a file under its name in mmpretrain.

    Args:
        name: in mmpretrain.
        change: of its value.
    """

    name: str
    change: Change | None = None


@dataclass(frozen=True)
class Naming:
    """The names of one library for one family of backbones.

    Args:
        title: in words.
        rules: the first one that fits a name counts; a name that none fits is no part of the backbone.
        library: what the converter calls it: ``timm``, ``torchvision`` or ``mm``; empty where it only reads it.
        family: of the backbones.
    """

    title: str
    rules: tuple[Rule, ...]
    library: str = ""
    family: str = ""
    _renamed: dict[str, Entry | None] = field(default_factory=dict, repr=False, compare=False)

    def entries(self, names: Iterable[str]) -> dict[str, Entry]:
        """What names of the other library are in mmpretrain; those that have no place there are left out."""
        found = {}
        for name in names:
            if name not in self._renamed:
                self._renamed[name] = self._entry(name)
            entry = self._renamed[name]
            if entry is not None:
                found[name] = entry
        return found

    def to_theirs(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of mmpretrain in the other library's names and values; what has no place is left out."""
        renamed = {}
        for name, value in state.items():
            for rule in self.rules:
                theirs = rule.their_name(name)
                if theirs is not None:
                    renamed[theirs] = rule.change.to_theirs(value) if rule.change else value
                    break
        return renamed

    def _entry(self, name: str) -> Entry | None:
        for rule in self.rules:
            ours = rule.our_name(name)
            if ours is not None:
                return Entry(ours, rule.change)
        return None


def same(*names: str) -> tuple[Rule, ...]:
    """Rules for names that are equal in both."""
    return tuple(Rule(name, name) for name in names)


def _pattern(template: str) -> re.Pattern:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(f"(?P<{part}>{_PLACEHOLDERS[part]})" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    )
