"""The fenced blocks of the pages, and the commands in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
#: How a block of commands may be marked; README has no mark.
SHELL = ("", "bash")
_FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})(?P<info>[^\n`]*)\n(?P<text>.*?)^(?P=fence)[ ]*$", re.M | re.S)
_SUBSTITUTION = re.compile(r"^([A-Z_]+)=(\$\(.*\)\S*)$")
_ASSIGNMENT = re.compile(r"^[A-Z_][A-Z0-9_]*=")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        page: name of the page.
        line: number of its fence's line.
        language: what stands behind the fence.
        text: what is in it.
    """

    page: str
    line: int
    language: str
    text: str


class Command(NamedTuple):
    """A command as a shell gets it.

    Attributes:
        page: name of the page that prints it.
        text: the command without its comment, in one line, with the block's own variables put in.
    """

    page: str
    text: str

    @property
    def words(self) -> list[str]:
        """The words behind the assignments of the environment."""
        words = shlex.split(self.text)
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        return words


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    text = page.read_text()
    return [
        Block(page.name, text.count("\n", 0, match.start()) + 1, match["info"].strip(), match["text"])
        for match in _FENCE.finditer(text)
    ]


def commands(block: Block) -> list[Command]:
    """The commands of a shell block; an assignment that stands alone is put into those below it."""
    found, variables = [], {}
    for line in block.text.replace("\\\n", " ").splitlines():
        text = " ".join(_without_comment(line).split())
        substitution = _SUBSTITUTION.match(text)
        if substitution:
            variables[substitution[1]] = substitution[2]
        elif text and all(_ASSIGNMENT.match(word) for word in shlex.split(text)):
            variables |= dict(word.split("=", 1) for word in shlex.split(text))
        elif text:
            for name, value in variables.items():
                text = re.sub(rf"\${name}\b", lambda _, value=value: value, text)
            found.append(Command(block.page, text))
    return found


def _without_comment(line: str) -> str:
    """The line up to a ``#`` that begins a word."""
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0]


def all_commands() -> list[Command]:
    """Every command of every page once, in the order of the pages."""
    seen: dict[str, Command] = {}
    for page in PAGES:
        for block in blocks(page):
            if block.language in SHELL:
                for command in commands(block):
                    seen.setdefault(command.text, command)
    return list(seen.values())


def examples() -> dict[tuple[str, str], str]:
    """The files that the pages show: page and name, which is the first line's comment, to the text."""
    found = {}
    for page in PAGES:
        for block in blocks(page):
            name = re.match(r"# ([\w/.-]+\.py)\n", block.text)
            if block.language == "python" and name:
                found[page.name, name[1]] = block.text
    return found
