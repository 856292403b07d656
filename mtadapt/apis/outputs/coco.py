"""COCO's results, one file a task."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from mtadapt.apis.outputs.base import GrowingFolder, JsonList, Output
from mtadapt.apis.outputs.predictions import boxes_of, encode_mask, image_size, map_of
from mtadapt.apis.sources import Frame
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample


class CocoResults(Output):
    """A folder with ``<task>.json``, what ``COCO.loadRes`` reads, and ``images.json``, what its ids mean.

    Detections are ``image_id``, ``category_id``, ``bbox`` (x, y, width, height) and ``score``, with ``segmentation``
    where the task predicts masks. Dense tasks have the ``segmentation`` of every class in an image, as COCO-Stuff.
    Classes of whole images are not among COCO's results.

    Args:
        path: the folder.
        metas: task to its ``classes``.
        overwrite: whether a folder that is there is replaced.
        annotations: a file of COCO annotations whose ids are taken, by the file names of its images and the names of
            its categories; without it, and for tasks with other classes, images count from 0 and categories from 1, a
            task's in the order of its classes.

    Raises:
        MTAdaptError: when the annotations cannot be read or have the classes of no task.
    """

    def __init__(
        self,
        path: Path,
        metas: Mapping[str, Mapping[str, Any]],
        overwrite: bool = False,
        annotations: str | Path | None = None,
    ) -> None:
        super().__init__(path, overwrite)
        self.metas = metas
        self._annotations = annotations
        self._image_ids: dict[str, set[int]] | None = None
        categories = {
            task: {name: number for number, name in enumerate(meta["classes"], 1)} for task, meta in metas.items()
        }
        if annotations is not None:
            self._image_ids, known = _read_ids(Path(annotations))
            categories = _known_ids(categories, known, annotations)
        self._categories = {task: list(ids.values()) for task, ids in categories.items()}
        tables = {
            task: [dict(id=number, name=name) for name, number in ids.items()] for task, ids in categories.items()
        }
        self._folder = GrowingFolder(path)
        folder = self._folder.unfinished
        self._images = JsonList(folder / "images.json", f'{{"categories": {json.dumps(tables)}, "images": [', "]}")
        self._files = {task: JsonList(folder / f"{task}.json") for task in metas}
        self._count = 0
        self._used: dict[int, str] = {}

    def add(self, frame: Frame, sample: MultiTaskDataSample, picture: np.ndarray | None) -> None:
        """Write a frame's results."""
        image = self._image_id(frame)
        height, width = image_size(sample)
        self._images.add(dict(id=image, file_name=frame.file_name, width=width, height=height))
        for task in self.metas:
            if task in sample.tasks:
                for result in _results(sample.task(task), image, self._categories[task]):
                    self._files[task].add(result)

    def finish(self) -> list[Path]:
        """Close the files and give the folder its name."""
        names = [file.finish().name for file in (*self._files.values(), self._images)]
        folder = self._folder.finish()
        return [folder / name for name in names]

    def abort(self) -> None:
        """Remove the folder."""
        for file in (*self._files.values(), self._images):
            file.abort()
        self._folder.abort()

    def _image_id(self, frame: Frame) -> int:
        if self._image_ids is None:
            self._count += 1
            return self._count - 1
        # Inputs and annotations may begin with other folders, so the longest end that both have decides.
        found = next((self._image_ids[end] for end in _ends(frame.file_name) if end in self._image_ids), set())
        if not found:
            raise MTAdaptError(f"{frame.source}: {frame.file_name} is no image of {self._annotations}; leave it out")
        image = min(found)
        if len(found) > 1 or image in self._used:
            other = self._used.get(image, "another image")
            raise MTAdaptError(
                f"{frame.source}: {self._annotations} does not tell it from {other} by its name; give their folders in "
                "two calls, with the annotations of each"
            )
        self._used[image] = frame.source
        return image


def _results(native: Any, image: int, categories: list[int]) -> list[dict[str, Any]]:
    results = []
    boxes = boxes_of(native)
    if boxes is not None:
        sizes = boxes.corners[:, 2:] - boxes.corners[:, :2]
        for row, label in enumerate(boxes.labels):
            result: dict[str, Any] = dict(
                image_id=image,
                category_id=categories[label],
                bbox=[*boxes.corners[row, :2].tolist(), *sizes[row].tolist()],
                score=float(boxes.scores[row]),
            )
            if boxes.masks is not None:
                result["segmentation"] = encode_mask(boxes.masks[row])
            results.append(result)
    ids = map_of(native)
    for value in () if ids is None else np.unique(ids):
        if value < len(categories):
            results.append(dict(image_id=image, category_id=categories[value], segmentation=encode_mask(ids == value)))
    return results


def _ends(file_name: str) -> list[str]:
    """``a/b/c.jpg``, ``b/c.jpg`` and ``c.jpg`` of ``a/b/c.jpg``."""
    parts = PurePath(file_name).parts
    return ["/".join(parts[first:]) for first in range(len(parts))]


def _read_ids(path: Path) -> tuple[dict[str, set[int]], dict[str, int]]:
    """Ids of the images by every end of their names, and those of the categories."""
    try:
        content = json.loads(path.read_text())
        images: dict[str, set[int]] = {}
        for each in content["images"]:
            for end in _ends(each["file_name"]):
                images.setdefault(end, set()).add(int(each["id"]))
        return images, {each["name"]: int(each["id"]) for each in content["categories"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MTAdaptError(
            f"{path}: no COCO annotations with images and categories ({type(error).__name__}: {error})"
        ) from error


def _known_ids(
    categories: Mapping[str, dict[str, int]], known: Mapping[str, int], path: str | Path
) -> dict[str, dict[str, int]]:
    """The ids of the annotations for the tasks whose classes they have, and those that count for the others."""
    fitting = [task for task, names in categories.items() if all(name in known for name in names)]
    if not fitting:
        task, names = next(iter(categories.items()))
        missing = next(name for name in names if name not in known)
        raise MTAdaptError(f"{path}: has no category {missing!r} of task {task!r}; its categories: {', '.join(known)}")
    return {
        task: {name: known[name] for name in names} if task in fitting else names for task, names in categories.items()
    }
