"""Style, object and relation labels from BDD100K's detection labels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtadapt.datasets.bdd100k_classes import DET_IGNORED, DET_NAMES, METAINFO
from mtadapt.datasets.multi_label.box_labels import BoxLabels
from mtadapt.datasets.multi_label.reader import ImageLabels, LabelReader
from mtadapt.datasets.multi_label.vocabulary import ABSENT, PRESENT, LabelVocabulary
from mtadapt.datasets.scalabel import FrameBoxes, read_boxes
from mtadapt.errors import MTAdaptError
from mtadapt.registry import TASK_UTILS

#: Attributes of a frame and their values; ``undefined`` makes the labels of the attribute unknown.
ATTRIBUTES = dict(
    weather=("clear", "overcast", "partly cloudy", "rainy", "snowy", "foggy"),
    scene=("city street", "highway", "residential", "parking lot", "tunnel", "gas stations"),
    timeofday=("daytime", "dawn/dusk", "night"),
)
CATEGORIES: tuple[str, ...] = METAINFO["tasks"]["det"]["classes"]
SPLITS = ("train", "val")


@TASK_UTILS.register_module()
class BDD100KLabels(LabelReader):
    """Labels of BDD100K's 100k images, read from ``labels/det_20/det_{train,val}.json``.

    Style labels are the attributes of a frame, ``weather=rainy``, ``scene=highway``, ``timeofday=night``; an attribute
    that is ``undefined`` or left out makes the labels of its group unknown. Objects are the categories of the boxes,
    relations come from the boxes, see :func:`~mtadapt.datasets.multi_label.spatial_relations`. Images without a frame
    are kept, with all labels unknown.

    Args:
        data_root: folder that holds ``images`` and ``labels``.
        split: ``train`` or ``val``.
        names: category to the name or names that it has among the labels, see
            :class:`~mtadapt.datasets.multi_label.box_labels.BoxLabels`.
        remedy: what to do when the data are not there, for the message; e.g. the command that makes them.

    Raises:
        MTAdaptError: for missing files, broken labels, unknown values of attributes, and style labels that are no
            attribute's.

    Reference:
        https://doc.bdd100k.com/format.html
    """

    def __init__(
        self,
        data_root: str,
        split: str = "train",
        names: Mapping[str, str | Sequence[str]] | None = None,
        remedy: str = "see docs/prepare_bdd100k.md for the layout",
    ) -> None:
        if split not in SPLITS:
            raise MTAdaptError(f"BDD100KLabels: unknown split {split!r}; known: {', '.join(SPLITS)}")
        self.path = str(Path(data_root, "labels", "det_20", f"det_{split}.json"))
        self.folder = os.path.join(data_root, "images", "100k", split)
        self.names = names
        self.remedy = remedy

    def read(self, vocabulary: LabelVocabulary) -> ImageLabels:
        """Return the images of the folder in the order of their names, then the frames without an image."""
        self.require(self.path, self.folder)
        _check_styles(vocabulary)
        from_boxes = BoxLabels(vocabulary, CATEGORIES, self.names, type(self).__name__)
        frames = read_frames(self.path)
        files = {name[:-4]: name for name in sorted(os.listdir(self.folder)) if name.endswith(".jpg")}
        labelled = [stem for stem in files if stem in frames] + [stem for stem in frames if stem not in files]
        scores = vocabulary.unknown(len(labelled))
        for row, stem in zip(scores, labelled, strict=True):
            self._fill_styles(row, vocabulary, stem, frames[stem].attributes)
        from_boxes.fill(scores, *join_boxes([frames[stem] for stem in labelled]))
        rows = dict(zip(labelled, scores, strict=True))
        stems = [*files, *(stem for stem in frames if stem not in files)]
        paths = [os.path.join(self.folder, files.get(stem, f"{stem}.jpg")) for stem in stems]
        nothing = vocabulary.unknown(1)[0]
        return ImageLabels(paths, np.array([rows.get(stem, nothing) for stem in stems]).reshape(-1, len(vocabulary)))

    def _fill_styles(
        self, scores: np.ndarray, vocabulary: LabelVocabulary, stem: str, attributes: Mapping[str, str]
    ) -> None:
        for group, numbers in vocabulary.groups.items():
            value = attributes.get(group, "undefined")
            if group not in ATTRIBUTES or value == "undefined":
                continue
            if value not in ATTRIBUTES[group]:
                raise MTAdaptError(
                    f"{self.path}: frame {stem!r}: {group} is {value!r}; known: {', '.join(ATTRIBUTES[group])}, "
                    f"undefined"
                )
            scores[[*numbers.values()]] = ABSENT
            if value in numbers:
                scores[numbers[value]] = PRESENT


def read_frames(path: str) -> dict[str, FrameBoxes]:
    """Read the boxes and attributes of a file of BDD100K's detection labels, by the stems of the images.

    Raises:
        MTAdaptError: as :func:`~mtadapt.datasets.scalabel.read_boxes`.
    """
    class_ids = {name: number for number, name in enumerate(CATEGORIES)}
    class_ids.update({alias: class_ids[name] for alias, name in DET_NAMES.items()})
    return read_boxes(Path(path), class_ids, DET_IGNORED, skip_bad=False)[0]


def join_boxes(frames: Sequence[FrameBoxes]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return ``boxes``, ``labels`` and ``ignore`` of all frames, see :class:`FrameBoxes`, and the frame of each box."""
    parts = [frame.unpack() for frame in frames]
    boxes, labels, ignore = (
        np.concatenate([start, *(part[number] for part in parts)])
        for number, start in enumerate((np.zeros((0, 4), np.float32), np.zeros(0, np.uint8), np.zeros(0, bool)))
    )
    return boxes, labels, ignore, np.repeat(np.arange(len(frames)), [frame.num for frame in frames])


def _check_styles(vocabulary: LabelVocabulary) -> None:
    for group, values in ATTRIBUTES.items():
        for value in vocabulary.groups.get(group, ()):
            if value not in values:
                raise MTAdaptError(f"labels: style '{group}={value}'; BDD100K's values are {', '.join(values)}")
