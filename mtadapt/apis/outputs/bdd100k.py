"""The files that the BDD100K benchmarks take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mtadapt.apis.outputs.base import GrowingFolder, JsonList, Output
from mtadapt.apis.outputs.masks import write_png
from mtadapt.apis.outputs.predictions import boxes_of, map_of
from mtadapt.apis.outputs.scalabel import box2d
from mtadapt.apis.sources import Frame
from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample

_TASKS: dict[str, dict[str, Any]] = METAINFO["tasks"]


class BDD100KSubmission(Output):
    """A folder with ``det.json``, ``sem_seg/<name>.png`` and ``drivable/<name>.png``, of the tasks that are predicted.

    ``det.json`` is a list of frames in Scalabel's format with the ten official categories; the maps hold train ids,
    those of the drivable area 0 for direct, 1 for alternative and 2 for background.

    Args:
        path: the folder.
        metas: task to its ``classes``.
        overwrite: whether a folder that is there is replaced.

    Raises:
        MTAdaptError: when no task is one of BDD100K, or one has other classes.

    Reference:
        https://doc.bdd100k.com/evaluate.html
    """

    def __init__(self, path: Path, metas: Mapping[str, Mapping[str, Any]], overwrite: bool = False) -> None:
        super().__init__(path, overwrite)
        self.tasks = [task for task in _TASKS if task in metas]
        if not self.tasks:
            raise MTAdaptError(
                f"submission: BDD100K's tasks are {', '.join(_TASKS)}, the chosen ones are {', '.join(metas)}"
            )
        for task in self.tasks:
            own, official = tuple(metas[task]["classes"]), tuple(_TASKS[task]["classes"])
            if own != official:
                raise MTAdaptError(
                    f"submission: task {task!r} has the classes {', '.join(own)}, BDD100K's are {', '.join(official)}"
                )
        self._folder = GrowingFolder(path)
        self._boxes = JsonList(self._folder.unfinished / "det.json") if "det" in self.tasks else None

    def add(self, frame: Frame, sample: MultiTaskDataSample, picture: np.ndarray | None) -> None:
        """Write a frame's results."""
        for task in self.tasks:
            ids = map_of(sample.task(task))
            if ids is not None:
                write_png(self._folder.unfinished / task / f"{frame.name}.png", ids)
        boxes = None if self._boxes is None else boxes_of(sample.task("det"))
        if self._boxes is None or boxes is None:
            return
        classes = _TASKS["det"]["classes"]
        labels = [
            dict(id=str(row), category=classes[label], score=float(boxes.scores[row]), box2d=box2d(boxes.corners[row]))
            for row, label in enumerate(boxes.labels)
        ]
        self._boxes.add(dict(name=frame.file_name, labels=labels))

    def finish(self) -> list[Path]:
        """Give the folder its name."""
        if self._boxes is not None:
            self._boxes.finish()
        return [self._folder.finish()]

    def abort(self) -> None:
        """Remove the folder."""
        if self._boxes is not None:
            self._boxes.abort()
        self._folder.abort()
