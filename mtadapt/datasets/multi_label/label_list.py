"""Labels from a plain list, in JSON or CSV."""

from __future__ import annotations

import csv
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtadapt.datasets.multi_label.reader import ImageLabels, LabelReader
from mtadapt.datasets.multi_label.vocabulary import ABSENT, KINDS, PRESENT, UNKNOWN, LabelVocabulary
from mtadapt.errors import MTAdaptError, first_line
from mtadapt.registry import TASK_UTILS

_CELLS = {"1": PRESENT, "0": ABSENT, "": UNKNOWN}


@TASK_UTILS.register_module()
class LabelList(LabelReader):
    """Labels of any images, written as a list.

    A ``.json`` file is one object, image to labels, in any of three forms::

        {
          "a.jpg": ["car", "weather=rainy"],
          "b.jpg": {"car": 1, "bus": 0, "train": null},
          "c.jpg": null
        }

    A list names all that is present: every other label is absent, and of a style group from which nothing is named,
    unknown. An object says 1 (present), 0 (absent) or null (unknown); labels that it leaves out are unknown. With null
    the image has no labels. A ``.csv`` file (UTF-8, commas) has a header with ``file`` and the names, one column a
    label, in any order, and the cells 1, 0 or nothing (unknown); labels without a column are unknown::

        file,car,bus,weather=rainy
        a.jpg,1,0,1
        b.jpg,1,,

    In both, a style label that is present makes the others of its group absent. Images without a file are refused, and
    so is every name, value or repetition that does not fit.

    Args:
        path: the list.
        img_folder: folder that the names of the images are relative to.
        names: name in the list to its label, to the list of its labels, or to None for none. Of several names for one
            label, one that is present makes it present, else one that is unknown makes it unknown.
        kinds: the kinds of labels that the list speaks of; the others are unknown.
        remedy: what to do when the data are not there, for the message; e.g. the command that makes them.

    Raises:
        MTAdaptError: naming the file, the entry and the name.
    """

    may_know_nothing = True

    def __init__(
        self,
        path: str,
        img_folder: str,
        names: Mapping[str, str | Sequence[str] | None] | None = None,
        kinds: Sequence[str] = KINDS,
        remedy: str = "check the paths of the reader",
    ) -> None:
        if Path(path).suffix.lower() not in (".json", ".csv"):
            raise MTAdaptError(f"LabelList: path={path!r}; the list is a .json or a .csv file")
        wrong = [kind for kind in kinds if kind not in KINDS]
        if isinstance(kinds, str) or wrong:
            raise MTAdaptError(f"LabelList: kinds={kinds!r}; write a list of {', '.join(KINDS)}")
        self.path = str(path)
        self.img_folder = str(img_folder)
        self.names = dict(names or {})
        self.kinds = tuple(kinds)
        self.remedy = remedy

    def read(self, vocabulary: LabelVocabulary) -> ImageLabels:
        """Return the images in the order of the list."""
        self.require(self.path, self.img_folder)
        numbers = self._numbers(vocabulary)
        read = self._read_csv if self.path.lower().endswith(".csv") else self._read_json
        paths, rows = [], []
        for entry, name, values in read(vocabulary, numbers):
            row = vocabulary.unknown(1)
            _merge(row[0], values)
            self._exclude(row[0], vocabulary, entry)
            paths.append(os.path.join(self.img_folder, name))
            rows.append(row)
        return ImageLabels(paths, np.concatenate([vocabulary.unknown(0), *rows]))

    def _numbers(self, vocabulary: LabelVocabulary) -> dict[str, tuple[int, ...]]:
        """Name in the list to the numbers of its labels."""
        covered = [name for kind in self.kinds for name in vocabulary.of_kind(kind)]
        spelt: dict[str, tuple[str, ...]] = {name: (name,) for name in covered}
        for name, given in self.names.items():
            spelt[name] = (given,) if isinstance(given, str) else tuple(given or ())
            wrong = [label for label in spelt[name] if label not in covered]
            if wrong:
                raise MTAdaptError(f"LabelList: names maps {name!r} to {wrong[0]!r}, which is no label of {self.kinds}")
        return {name: tuple(vocabulary.index[label] for label in labels) for name, labels in spelt.items()}

    def _look_up(self, name: Any, numbers: Mapping[str, tuple[int, ...]], entry: str) -> tuple[int, ...]:
        if not isinstance(name, str) or name not in numbers:
            shown = ", ".join([*numbers][:10]) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")
            raise MTAdaptError(
                f"{self.path}: {entry}: unknown label {name!r}; known: {shown}; correct it, add it to labels, or "
                f"map it with names"
            )
        return numbers[name]

    def _read_json(
        self, vocabulary: LabelVocabulary, numbers: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[str, str, Iterable[tuple[int, int]]]]:
        try:
            # Pairs, because a dictionary would keep the last of two equal keys.
            document = json.loads(Path(self.path).read_text(encoding="utf-8-sig"), object_pairs_hook=_Pairs)
        except (OSError, ValueError) as error:
            raise MTAdaptError(f"{self.path}: cannot be read as JSON: {first_line(error)}") from error
        if not isinstance(document, _Pairs):
            raise MTAdaptError(f"{self.path}: holds a {type(document).__name__}; write one object, image to labels")
        covered = [number for kind in self.kinds for number in range(*vocabulary.kinds.get(kind, (0, 0)))]
        grouped = [label for group in vocabulary.groups.values() for label in group.values()]
        others = sorted(set(covered) - set(grouped))
        for name, labels in document:
            entry = f"image {name!r}"
            if labels is None:
                yield entry, name, ()
            elif isinstance(labels, _Pairs):
                yield entry, name, self._values(labels, numbers, entry)
            elif isinstance(labels, list):
                present = {number for label in labels for number in self._look_up(label, numbers, entry)}
                absent = [(number, ABSENT) for number in others if number not in present]
                yield entry, name, [*((number, PRESENT) for number in present), *absent]
            else:
                raise MTAdaptError(
                    f"{self.path}: {entry}: labels are {labels!r}; write a list of names, an object of name to 1, 0 or "
                    f"null, or null"
                )

    def _values(self, labels: _Pairs, numbers: Mapping[str, tuple[int, ...]], entry: str) -> Iterator[tuple[int, int]]:
        twice = [label for label, number in Counter(label for label, _ in labels).items() if number > 1]
        if twice:
            raise MTAdaptError(f"{self.path}: {entry}: label {twice[0]!r} is there twice; leave one out")
        for label, value in labels:
            found = self._look_up(label, numbers, entry)
            if isinstance(value, bool) or value not in (0, 1, None):
                raise MTAdaptError(f"{self.path}: {entry}: label {label!r} is {value!r}; write 1, 0 or null")
            yield from ((number, UNKNOWN if value is None else int(value)) for number in found)

    def _read_csv(
        self, vocabulary: LabelVocabulary, numbers: Mapping[str, tuple[int, ...]]
    ) -> Iterator[tuple[str, str, Iterable[tuple[int, int]]]]:
        with open(self.path, encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            try:
                header = [cell.strip() for cell in next(lines, [])]
                if header.count("file") != 1 or len(set(header)) < len(header):
                    raise MTAdaptError(
                        f"{self.path}: line 1: the header is {','.join(header)!r}; it needs one column 'file' and "
                        f"every label once"
                    )
                columns = [() if cell == "file" else self._look_up(cell, numbers, "line 1") for cell in header]
                for cells in lines:
                    if cells:
                        yield self._read_line(f"line {lines.line_num}", cells, header, columns)
            except (csv.Error, UnicodeDecodeError) as error:
                raise MTAdaptError(f"{self.path}: line {lines.line_num}: broken CSV: {first_line(error)}") from error

    def _read_line(
        self, entry: str, cells: Sequence[str], header: Sequence[str], columns: Sequence[tuple[int, ...]]
    ) -> tuple[str, str, list[tuple[int, int]]]:
        if len(cells) != len(header):
            raise MTAdaptError(f"{self.path}: {entry}: {len(cells)} cells; the header has {len(header)} columns")
        values, file = [], header.index("file")
        for column, cell in enumerate(cells):
            if column == file:
                continue
            if cell.strip() not in _CELLS:
                raise MTAdaptError(
                    f"{self.path}: {entry}, image {cells[file]!r}: label {header[column]!r} is {cell!r}; write 1, 0 or "
                    f"nothing"
                )
            value = _CELLS[cell.strip()]
            values += [(number, value) for number in columns[column]]
        return f"{entry}, image {cells[file]!r}", cells[file], values

    def _exclude(self, scores: np.ndarray, vocabulary: LabelVocabulary, entry: str) -> None:
        """Make the others of a group absent where one is present."""
        for group, values in vocabulary.groups.items():
            labels = np.array([*values.values()])
            present = labels[scores[labels] == PRESENT]
            if len(present) > 1:
                both = " and ".join(repr(vocabulary.names[label]) for label in present[:2])
                raise MTAdaptError(f"{self.path}: {entry}: {both} are present; an image has one {group}")
            if len(present):
                scores[labels[labels != present]] = ABSENT


def _merge(scores: np.ndarray, values: Iterable[tuple[int, int]]) -> None:
    """Write values into scores; of several values for a label the first of present, unknown and absent counts."""
    given: dict[int, set[int]] = {}
    for label, value in values:
        given.setdefault(label, set()).add(value)
    for label, found in given.items():
        scores[label] = next(value for value in (PRESENT, UNKNOWN, ABSENT) if value in found)


class _Pairs(list):
    """The members of a JSON object, in their order."""
