"""The messages that the package can give, read from its sources."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.test_documentation.blocks import ROOT

#: Fixed text that a template has to have: a shorter one would match anything.
LEAST = 20


def templates() -> list[re.Pattern]:
    """Every string of the package and its tools as an expression, with any text in the place of what is put in."""
    found = set()
    for folder in ("mtadapt", "tools"):
        for file in (ROOT / folder).rglob("*.py"):
            if ".mim" not in file.parts:
                found |= set(_strings(ast.parse(file.read_text(encoding="utf-8"))))
    return [re.compile(pattern) for pattern in sorted(found)]


def _strings(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            # What str.format fills in.
            parts = [None if re.fullmatch(r"\{.*\}", part) else part for part in re.split(r"(\{.*?\})", node.value)]
        else:
            continue
        if sum(len(part) for part in parts if part) >= LEAST:
            yield "".join(".+?" if part is None else re.escape(part) for part in parts)
