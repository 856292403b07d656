"""The components that an example names: they exist, and take the settings that it gives them."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator

from mtadapt import registry
from mtadapt.registry import LIBRARIES

REGISTRIES = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]
SCOPES = ("mtadapt", *LIBRARIES, "mmengine")
#: Settings that are not the component's own: those of registries and configs, and those of AdaptedBackbone's entries.
OWN = {"type", "_scope_", "_delete_", "targets"}
#: Types that no registry has: mmcv's name of its suppression of overlapping boxes.
PLAIN = {"nms"}


def tree_of(text: str) -> ast.Module:
    """The syntax tree of an example, in which ``...`` may stand where anything may."""
    text = re.sub(r",\s*\.\.\.(?=\s*[,)\]}])", "", text)  # dict(a=1, ..., b=2)
    text = re.sub(r"(?<=dict\()\s*\.\.\.,", "", text)  # dict(..., a=1)
    text = re.sub(r"\{\{(_base_\.\w+)\}\}", r"\1", text)
    return ast.parse(text)


def components(tree: ast.AST) -> Iterator[tuple[str, set[str]]]:
    """Type and settings of every ``dict(type='...', ...)``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "dict":
            settings = {keyword.arg: keyword.value for keyword in node.keywords}
            kind = settings.get("type")
            if isinstance(kind, ast.Constant) and isinstance(kind.value, str) and kind.value not in PLAIN:
                yield kind.value, {name for name in settings if name} - OWN


def classes_named(kind: str) -> list[Callable]:
    """All classes and functions that any registry has under a name; a bare name may be any library's."""
    names = [kind] if "." in kind else [f"{scope}.{kind}" for scope in SCOPES]
    return [found for each in REGISTRIES for name in names if (found := each.get(name)) is not None]


def refused(kind: Callable, settings: set[str]) -> set[str]:
    """The settings that a class or a function does not take; what it hands on to its parents is theirs to refuse."""
    if not inspect.isclass(kind):
        return settings - set(inspect.signature(kind).parameters)
    known: set[str] = set()
    for parent in inspect.getmro(kind):
        parameters = inspect.signature(parent.__init__).parameters if "__init__" in vars(parent) else {}
        known |= set(parameters)
        if parameters and not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            break
    return settings - known
