"""Objects that annotated categories stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mtadapt.errors import MTAdaptError


class ObjectNames:
    """The objects that annotated categories stand for.

    Args:
        categories: names of the categories, in the order of their class indices.
        names: category to the name or the names of its objects, such as
            ``dict(pedestrian='person', rider=['person', 'rider'])``; the others keep their own. A category with an
            empty list has none: its object is unknown, for files that do not annotate it.
        owner: who has the setting ``names``, for messages.

    Attributes:
        rows: object to its number.
        padded: ``(categories, most objects of one)`` int64, the numbers of a category's objects, filled up with
            ``len(rows)``.

    Raises:
        MTAdaptError: when ``names`` has a category that is not annotated.
    """

    def __init__(self, categories: Sequence[str], names: Mapping[str, str | Sequence[str]] | None, owner: str) -> None:
        names = dict(names or {})
        wrong = [name for name in names if name not in categories]
        if wrong:
            raise MTAdaptError(f"{owner}: names has the unknown category {wrong[0]!r}; known: {', '.join(categories)}")
        given = [names.get(category, category) for category in categories]
        spelt = [(name,) if isinstance(name, str) else tuple(name) for name in given]
        self.rows = {name: row for row, name in enumerate(dict.fromkeys(name for entry in spelt for name in entry))}
        self.padded = np.full((len(categories), max(1, *map(len, spelt))), len(self.rows), np.int64)
        for category, entry in enumerate(spelt):
            self.padded[category, : len(entry)] = [self.rows[name] for name in entry]
