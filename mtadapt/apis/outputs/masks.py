"""Class ids of dense tasks as PNG files."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mtadapt.apis.outputs.base import GrowingFolder, Output
from mtadapt.apis.outputs.predictions import map_of
from mtadapt.apis.sources import Frame
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample


class MaskFolder(Output):
    """A folder with ``<task>/<name>.png``, one byte a pixel with the class id.

    Args:
        path: the folder.
        overwrite: whether a folder that is there is replaced.
    """

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        super().__init__(path, overwrite)
        self._folder = GrowingFolder(path)

    def add(self, frame: Frame, sample: MultiTaskDataSample, picture: np.ndarray | None) -> None:
        """Write a frame's maps."""
        for task in sample.tasks:
            ids = map_of(sample.task(task))
            if ids is not None:
                write_png(self._folder.unfinished / task / f"{frame.name}.png", ids)

    def finish(self) -> list[Path]:
        """Give the folder its name."""
        return [self._folder.finish()]

    def abort(self) -> None:
        """Remove the folder."""
        self._folder.abort()


def write_png(path: Path, ids: np.ndarray) -> None:
    """Write a map ``(H, W)`` uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), ids):
        raise MTAdaptError(f"{path}: cannot be written; check the space on the disk and the rights")
