"""Parse a command by the parser of its own tool, without running it."""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.test_documentation.blocks import ROOT


class _ParsedError(Exception):
    """Ends a tool behind its parser."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__("parsed")
        self.arguments = arguments


def parsed(words: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """What the tool's parser makes of a command.

    Args:
        words: the command from the tool's path on, or ``-m`` and a module.
        monkeypatch: of the test.

    Raises:
        AssertionError: where the parser refuses the command, or the tool has none.
    """
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser: argparse.ArgumentParser, args=None, namespace=None):
        raise _ParsedError(original(parser, args, namespace))

    module = words[1] if words[0] == "-m" else None
    tool = ROOT / words[0]
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
        patch.setattr(sys, "argv", [str(tool), *words[2 if module else 1 :]])
        patch.setattr(sys, "path", [str(tool.parent), *sys.path])
        try:
            runpy.run_module(module, run_name="__main__") if module else runpy.run_path(str(tool), run_name="__main__")
        except _ParsedError as done:
            return done.arguments
        except SystemExit as error:
            raise AssertionError(f"{' '.join(words)}: refused by the parser ({error})") from error
    raise AssertionError(f"{' '.join(words)}: ended without reading its arguments")


def configs_of(arguments: argparse.Namespace) -> list[Path]:
    """The config files of this repository among parsed arguments."""
    values = [value for given in vars(arguments).values() for value in (given if isinstance(given, list) else [given])]
    names = [str(value) for value in values if isinstance(value, (str, Path))]
    return [Path(name) for name in names if name.startswith("configs/") and name.endswith((".py", ".yaml"))]
