"""Errors that a user can mend, and the way in which the command line tells them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class MTAdaptError(ValueError):
    """A mistake in a setting, a file or an installation.

    The message is one line and names the setting or the file, the entry, the value and the remedy.
    """


def first_line(error: Exception) -> str:
    """Kind and first line of an exception, whose message may be empty."""
    # The text of a KeyError is the representation of its message.
    lines = str(error.args[0] if isinstance(error, KeyError) and error.args else error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the process with status 2 and one line on stderr when an :class:`MTAdaptError` is raised inside.

    Every other exception keeps its traceback, and so does this one if ``MTADAPT_TRACEBACK=1`` is set. An error that
    was raised in a worker of the data loader arrives with that worker's traceback in its message; the last line is
    the message itself.
    """
    try:
        yield
    except MTAdaptError as error:
        if os.environ.get("MTADAPT_TRACEBACK") == "1":
            raise
        message = str(error).strip().splitlines()[-1]
        print(f"error: {message.removeprefix(f'{__name__}.{type(error).__name__}: ')}", file=sys.stderr)
        sys.exit(2)
