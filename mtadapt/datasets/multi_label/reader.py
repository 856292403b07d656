"""What a reader of image labels gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mtadapt.datasets.multi_label.vocabulary import LabelVocabulary
from mtadapt.errors import MTAdaptError


class ImageLabels(NamedTuple):
    """The images of a source.

    Attributes:
        paths: the files of N images.
        scores: ``(N, K)`` int8, 1 where a label is present, 0 where absent, -1 where unknown.
    """

    paths: list[str]
    scores: np.ndarray


class LabelReader(ABC):
    """Reads the images of a source and their labels.

    Attributes:
        path: the label file, for messages.
        remedy: what to do when the data are not there, for messages.
        may_know_nothing: whether a source without a single label is meant so, and not a mistake in the names.
    """

    may_know_nothing = False
    path: str
    remedy: str

    @abstractmethod
    def read(self, vocabulary: LabelVocabulary) -> ImageLabels:
        """Return every image once; whether its file exists is checked by the dataset."""

    def require(self, path: str, folder: str) -> None:
        """Check that the label file and the folder of the images are there.

        Raises:
            MTAdaptError: naming what is missing and :attr:`remedy`.
        """
        if not Path(path).is_file():
            raise MTAdaptError(f"{path}: no such label file; {self.remedy}")
        if not Path(folder).is_dir():
            raise MTAdaptError(f"{folder}: no such folder of images; {self.remedy}")
