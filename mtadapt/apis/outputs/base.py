"""What every output can do, and files that appear when they are complete."""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mtadapt.apis.sources import Frame
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample

_UNFINISHED = ".unfinished"


def check_free(path: Path, overwrite: bool) -> None:
    """Refuse to replace what is there, unless that is wanted.

    Raises:
        MTAdaptError: when it is there.
    """
    if path.exists() and not overwrite:
        raise MTAdaptError(
            f"{path}: is there already; name another out_dir (--out-dir), or set overwrite=True (--overwrite)"
        )


class Output(ABC):
    """Something that is written frame by frame and appears under its name at the end.

    Args:
        path: file or folder.
        overwrite: whether one that is there is replaced.

    Raises:
        MTAdaptError: when it is there and is not to be replaced.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        check_free(path, overwrite)
        self.path = path

    @abstractmethod
    def add(self, frame: Frame, sample: MultiTaskDataSample, picture: np.ndarray | None) -> None:
        """Write what belongs to a frame.

        Args:
            frame: the image.
            sample: its predictions, in the size of the image.
            picture: the drawn picture, RGB, or None where nothing is drawn.
        """

    @abstractmethod
    def finish(self) -> list[Path]:
        """Complete the output and return what was made."""

    @abstractmethod
    def abort(self) -> None:
        """Remove what is unfinished."""


class OutputSet(Output):
    """Several outputs as one.

    Args:
        outputs: to write to.
        folder: that was made for them, which :meth:`abort` removes when nothing is left in it.
    """

    def __init__(self, outputs: Sequence[Output], folder: Path | None = None) -> None:
        self.outputs, self.folder = list(outputs), folder

    @property
    def needs_pictures(self) -> bool:
        """Whether one of them stores pictures."""
        return any(getattr(output, "needs_pictures", False) for output in self.outputs)

    def add(self, frame: Frame, sample: MultiTaskDataSample, picture: np.ndarray | None) -> None:
        """Write a frame to all."""
        for output in self.outputs:
            output.add(frame, sample, picture)

    def finish(self) -> list[Path]:
        """Complete all."""
        return [path for output in self.outputs for path in output.finish()]

    def abort(self) -> None:
        """Remove what is unfinished."""
        for output in self.outputs:
            output.abort()
        if self.folder is not None and self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()


class JsonList:
    """A JSON file with one list, written entry by entry.

    Args:
        path: the file, which appears when :meth:`finish` is called.
        head: what stands before the list.
        tail: what stands behind it.
    """

    def __init__(self, path: Path, head: str = "[", tail: str = "]") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self._tail = path, tail
        self._unfinished = path.with_name(path.name + _UNFINISHED)
        self._file = self._unfinished.open("w")
        self._file.write(head)
        self._empty = True

    def add(self, entry: Any) -> None:
        """Append an entry."""
        self._file.write(("\n" if self._empty else ",\n") + json.dumps(entry))
        self._empty = False

    def finish(self) -> Path:
        """Close the list and give the file its name."""
        self._file.write("\n" + self._tail + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._unfinished.replace(self.path)
        return self.path

    def abort(self) -> None:
        """Remove the file."""
        self._file.close()
        self._unfinished.unlink(missing_ok=True)


class GrowingFolder:
    """A folder that appears in whole.

    Args:
        path: the folder; one that is there is replaced by :meth:`finish`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Where files are written meanwhile.
        self.unfinished = path.with_name(path.name + _UNFINISHED)
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self.unfinished.mkdir(parents=True)

    def finish(self) -> Path:
        """Give the folder its name."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)
        self.unfinished.replace(self.path)
        return self.path

    def abort(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.unfinished, ignore_errors=True)
