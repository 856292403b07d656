"""YAML whose values know their line, so that a mistake in a file is told with its place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mtadapt.errors import MTAdaptError

_NAME = re.compile(r"[A-Za-z0-9_-]+")


class _Loader(yaml.SafeLoader):
    """The safe loader, which also reads ``1e-3`` as a number, as YAML 1.2 does."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


class Field:
    """A value of a YAML file and the line on which it stands.

    Args:
        where: ``FILE:LINE``.
        name: of the value, for messages, e.g. ``checkpoints[0].sha256``.
        value: a dictionary or a list of fields, or a plain value.
    """

    def __init__(self, where: str, name: str, value: Any) -> None:
        self.where = where
        self.name = name
        self.value = value

    def error(self, message: str) -> MTAdaptError:
        """An error that begins with the place."""
        return MTAdaptError(f"{self.where}: {message}")

    def fields(self, known: Sequence[str], required: Sequence[str] = ()) -> dict[str, Field]:
        """The entries of a mapping that has no other keys than these.

        Raises:
            MTAdaptError: for another kind of value, an unknown key, at its line, or a missing one.
        """
        entries = self.entries()
        for key, entry in entries.items():
            if key not in known:
                inside = f" in {self.name}" if self.name else ""
                raise entry.error(f"unknown field {key!r}{inside}; known: {', '.join(known)}")
        for key in required:
            if key not in entries:
                raise self.error(f"{self.name or 'the file'} has no field {key!r}; add it")
        return entries

    def entries(self) -> dict[str, Field]:
        """The entries of a mapping with any names."""
        if not isinstance(self.value, dict):
            raise self._wrong("a mapping")
        return self.value

    def items(self) -> list[Field]:
        """The entries of a list that is not empty."""
        if not isinstance(self.value, list) or not self.value:
            raise self._wrong("a list of at least one entry")
        return self.value

    def text(self) -> str:
        """A text that is not empty."""
        if not isinstance(self.value, str) or not self.value.strip():
            raise self._wrong("a text (in quotes if it looks like a number)")
        return self.value.strip()

    def identifier(self) -> str:
        """A name that can be part of a path."""
        if not isinstance(self.value, str) or not _NAME.fullmatch(self.value):
            raise self._wrong("letters, digits, _ and - (in quotes if it is a number)")
        return self.value

    def whole(self, least: int = 0) -> int:
        """A whole number."""
        if type(self.value) is not int or self.value < least:
            raise self._wrong(f"a whole number from {least} on")
        return self.value

    def number(self, most: float = float("inf")) -> float:
        """A number above 0."""
        if type(self.value) not in (int, float) or not 0 < self.value <= most:
            raise self._wrong("a number above 0" + (f" and up to {most:g}" if most < float("inf") else ""))
        return float(self.value)

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: entry.plain() for key, entry in self.value.items()}
        if isinstance(self.value, list):
            return [entry.plain() for entry in self.value]
        return self.value

    def _wrong(self, wanted: str) -> MTAdaptError:
        given = self.plain()
        return self.error(f"{self.name or 'the file'}: {given!r} is given; write {wanted}")


def read_yaml(path: Path) -> Field:
    """Read a YAML file; nothing in it is executed.

    Raises:
        MTAdaptError: when there is no such file, it is no YAML, or a key stands twice in one mapping.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise MTAdaptError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error
    try:
        node = loader.get_single_node()
        if node is None:
            raise MTAdaptError(f"{path}:1: the file is empty")
        return _field(loader, path, node, "")
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise MTAdaptError(f"{path}:{line}: no YAML: {error.problem or error.context}") from error
    finally:
        loader.dispose()


def _field(
    loader: _Loader, path: Path, node: yaml.Node, name: str, line: int | None = None, above: tuple[yaml.Node, ...] = ()
) -> Field:
    where = f"{path}:{line or node.start_mark.line + 1}"
    if any(node is each for each in above):
        raise MTAdaptError(f"{where}: refers to itself")
    if isinstance(node, yaml.SequenceNode):
        return Field(
            where,
            name,
            [_field(loader, path, each, f"{name}[{i}]", above=(*above, node)) for i, each in enumerate(node.value)],
        )
    if not isinstance(node, yaml.MappingNode):
        try:
            return Field(where, name, loader.construct_object(node))
        except ValueError as error:
            raise MTAdaptError(f"{where}: {name} cannot be read: {error}; put it in quotes") from error
    own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
    for number, (key, _) in enumerate(node.value):
        if not isinstance(key, yaml.ScalarNode):
            raise MTAdaptError(f"{path}:{key.start_mark.line + 1}: a list or a mapping is no name of a field")
        if key.value in own[:number]:
            raise MTAdaptError(f"{path}:{key.start_mark.line + 1}: {key.value!r} stands twice; give it another name")
    loader.flatten_mapping(node)
    entries = {}
    for key, value in node.value:
        inner = f"{name}.{key.value}" if name else key.value
        # The line of the name, where the value may begin only on the next one.
        entries[key.value] = _field(loader, path, value, inner, key.start_mark.line + 1, (*above, node))
    return Field(where, name, entries)
