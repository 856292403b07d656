"""The labels of a multi-label dataset: their kinds, their order and what they exclude."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from mtadapt.datasets.multi_label.relations import PREDICATES, split_relation
from mtadapt.errors import MTAdaptError

KINDS = ("style", "objects", "relations")
PRESENT, ABSENT, UNKNOWN = 1, 0, -1


class Relation(NamedTuple):
    """A relation's label: its number, and what it says."""

    label: int
    subject: str
    predicate: int
    object: str


class LabelVocabulary:
    """The K labels, numbered through the kinds ``style``, ``objects`` and ``relations`` in this order.

    Args:
        labels: kind to names. Style labels ``group=value``, such as ``weather=rainy``, exclude the others of their
            group; relations are ``<object> <predicate> <object>`` with the predicates of
            :func:`~mtadapt.datasets.multi_label.spatial_relations`.

    Attributes:
        names: the K names.
        kinds: kind to the numbers ``(start, stop)`` of its labels; kinds without labels are left out.
        index: name to number.
        groups: group of style labels to ``value -> number``.
        relations: those of the kind ``relations``.
        mirrored: ``(K,)`` int64, the label that an image has when its mirror image has label k: ``car left of bus``
            for ``bus left of car``; -1 where that is not among the labels, k itself where mirroring changes nothing.

    Raises:
        MTAdaptError: for unknown kinds, no labels, a name that is there twice or no text, and broken relations.
    """

    def __init__(self, labels: Mapping[str, Sequence[str]]) -> None:
        if not isinstance(labels, Mapping) or set(labels) - set(KINDS):
            raise MTAdaptError(f"labels={_short(labels)}; write dict(style=[...], objects=[...], relations=[...])")
        self.names: tuple[str, ...] = ()
        self.kinds: dict[str, tuple[int, int]] = {}
        for kind in KINDS:
            names = labels.get(kind) or ()
            if isinstance(names, str) or not all(isinstance(name, str) and name.strip() == name for name in names):
                raise MTAdaptError(f"labels: {kind}={_short(names)}; write a list of names without blanks around them")
            if names:
                self.kinds[kind] = (len(self.names), len(self.names) + len(names))
                self.names += tuple(names)
        if not self.names:
            raise MTAdaptError("labels: there are none; write dict(style=[...], objects=[...], relations=[...])")
        self.index = {name: number for number, name in enumerate(self.names)}
        if len(self.index) < len(self.names):
            twice = next(name for number, name in enumerate(self.names) if self.index[name] != number)
            raise MTAdaptError(f"labels: {twice!r} is there twice; every name stands for one label")
        self.groups: dict[str, dict[str, int]] = {}
        for name in self.of_kind("style"):
            group, equals, value = name.partition("=")
            if equals:
                self.groups.setdefault(group, {})[value] = self.index[name]
        self.relations = [self._relation(name) for name in self.of_kind("relations")]
        self.mirrored = self._mirrored()

    def __len__(self) -> int:
        return len(self.names)

    def of_kind(self, kind: str) -> tuple[str, ...]:
        """Names of the labels of a kind."""
        return self.names[slice(*self.kinds.get(kind, (0, 0)))]

    def unknown(self, number: int) -> np.ndarray:
        """Return scores ``(number, K)`` int8 of images of which nothing is known."""
        return np.full((number, len(self)), UNKNOWN, np.int8)

    def _relation(self, name: str) -> Relation:
        subject, predicate, other = split_relation(name)
        if predicate == "next to" and subject != other and f"{other} next to {subject}" in self.index:
            raise MTAdaptError(
                f"labels: {name!r} and '{other} next to {subject}' mean the same, as 'next to' has no direction; "
                f"leave one out"
            )
        return Relation(self.index[name], subject, PREDICATES.index(predicate), other)

    def _mirrored(self) -> np.ndarray:
        mirrored = np.arange(len(self))
        for label, subject, predicate, other in self.relations:
            if PREDICATES[predicate] == "left of":
                mirrored[label] = self.index.get(f"{other} left of {subject}", -1)
        return mirrored


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
