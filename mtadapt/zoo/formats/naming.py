"""How a library names the entries of a backbone, as a table that can be read in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
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
    """An entry under the name of the other side.

    Args:
        name: there.
        change: of its value, if any.
    """

    name: str
    change: Callable[[Tensor], Tensor] | None = None

    def value(self, given: Tensor) -> Tensor:
        """The value there."""
        return self.change(given) if self.change else given


@dataclass(frozen=True)
class Naming:
    """The names of one library for one family of backbones.

    Args:
        title: in words.
        rules: the first one that fits a name counts; a name that none fits is no part of the backbone.
        library: what the converter calls it, ``timm``, ``torchvision`` or both; empty where it only reads it.
        family: of the backbones.
    """

    title: str
    rules: tuple[Rule, ...]
    library: str = ""
    family: str = ""

    def to_ours(self, names: Iterable[str]) -> dict[str, Entry]:
        """What names of the other library are in mmpretrain; those that have no place there are left out."""
        return {name: entry for name in names if (entry := self._ours(name)) is not None}

    def to_theirs(self, names: Iterable[str]) -> dict[str, Entry]:
        """What names of mmpretrain are in the other library; those that have no place there are left out."""
        return {name: entry for name in names if (entry := self._theirs(name)) is not None}

    def _ours(self, name: str) -> Entry | None:
        for rule in self.rules:
            if (found := rule.our_name(name)) is not None:
                return Entry(found, rule.change.to_ours if rule.change else None)
        return None

    def _theirs(self, name: str) -> Entry | None:
        for rule in self.rules:
            if (found := rule.their_name(name)) is not None:
                return Entry(found, rule.change.to_theirs if rule.change else None)
        return None


def renamed(state: Mapping[str, Tensor], entries: Mapping[str, Entry]) -> dict[str, Tensor]:
    """The values of a state dict under their new names; entries without one are left out."""
    return {entry.name: entry.value(state[name]) for name, entry in entries.items()}


def same(*names: str) -> tuple[Rule, ...]:
    """Rules for names that are equal in both."""
    return tuple(Rule(name, name) for name in names)


def _pattern(template: str) -> re.Pattern:
    parts = re.split(r"\{(\w+)\}", template)
    return re.compile(
        "".join(f"(?P<{part}>{_PLACEHOLDERS[part]})" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    )
