"""Images with several labels of several kinds, each present, absent or unknown."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mtadapt.datasets.multi_label.reader import ImageLabels, LabelReader
from mtadapt.datasets.multi_label.vocabulary import LabelVocabulary
from mtadapt.datasets.skipped_samples import SkippedSamples
from mtadapt.errors import MTAdaptError
from mtadapt.registry import DATASETS, TASK_UTILS

_OF_THE_READER = ("metainfo", "ann_file", "data_root", "data_prefix")


@DATASETS.register_module()
class MultiLabelDataset(SkippedSamples):
    """Images with labels of style, objects and relations, for the task ``mlc``.

    The metainfo has ``classes`` (the K names, in the order of the scores) and ``kinds`` (kind to the numbers
    ``(start, stop)`` of its labels). An entry has ``img_path``, ``img_id``, ``labelled_tasks=('mlc',)``, ``gt_score``
    (``(K,)`` float32: 1 present, 0 absent, -1 unknown) and ``mirrored`` (``(K,)`` int64, see
    :class:`~mtadapt.datasets.multi_label.LabelVocabulary`), which ``PretrainViews`` needs where it flips.

    Args:
        labels: kind to names, see :class:`~mtadapt.datasets.multi_label.LabelVocabulary`. Labels that the reader
            never knows are unknown for all images, so that sources with other labels share one list.
        reader: config of what reads images and labels: ``BDD100KLabels``, ``CocoLabels`` or ``LabelList``.
        missing: ``raise`` or ``skip``: what to do with images that the label file lists and that are not there.
        on_error: ``raise`` or ``skip``: what to do with images that cannot be decoded; see
            :class:`~mtadapt.datasets.skipped_samples.SkippedSamples`.
        **kwargs: those of :class:`mmengine.dataset.BaseDataset`, such as ``pipeline`` and ``test_mode``.

    Raises:
        MTAdaptError: for broken labels, an image that is missing or listed twice, and a reader that knows no label.
    """

    def __init__(
        self,
        labels: Mapping[str, Sequence[str]],
        reader: Mapping[str, Any],
        missing: str = "raise",
        on_error: str = "raise",
        **kwargs: Any,
    ) -> None:
        known = set(inspect.signature(BaseDataset).parameters) - set(_OF_THE_READER)
        wrong = sorted(set(kwargs) - known)
        if wrong:
            raise MTAdaptError(f"MultiLabelDataset: unknown settings {wrong}; paths are settings of its reader")
        if missing not in ("raise", "skip"):
            raise MTAdaptError(f"MultiLabelDataset: missing={missing!r}; use 'raise' or 'skip'")
        if not isinstance(reader, Mapping) or "type" not in reader:
            raise MTAdaptError(f"MultiLabelDataset: reader={reader!r}; write dict(type='LabelList', ...)")
        self.vocabulary = LabelVocabulary(labels)
        self.missing = missing
        self.reader: LabelReader = TASK_UTILS.build(dict(reader))
        metainfo = dict(classes=self.vocabulary.names, kinds=self.vocabulary.kinds)
        super().__init__(metainfo=metainfo, on_error=on_error, **kwargs)

    @property
    def origin(self) -> str:
        """The label file."""
        return self.reader.path

    def load_data_list(self) -> list[dict]:
        """Read images and labels and return one entry an image."""
        images = self._existing(self.reader.read(self.vocabulary))
        self._summarise(images.scores)
        return [
            dict(img_path=path, img_id=number, labelled_tasks=("mlc",), scores=scores.tobytes())
            for number, (path, scores) in enumerate(zip(*images, strict=True))
        ]

    def get_data_info(self, idx: int) -> dict:
        """Return the entry of image ``idx``."""
        info = super().get_data_info(idx)
        info["gt_score"] = np.frombuffer(info.pop("scores"), np.int8).astype(np.float32)
        info["mirrored"] = self.vocabulary.mirrored
        return info

    def _existing(self, images: ImageLabels) -> ImageLabels:
        """Leave out or refuse images without a file; every folder is listed once."""
        if not images.paths:
            raise MTAdaptError(f"{self.origin}: no images; {self.reader.remedy}")
        files: dict[str, set[str]] = {}
        seen: set[str] = set()
        there = np.zeros(len(images.paths), bool)
        for number, path in enumerate(map(os.path.normpath, images.paths)):
            if path in seen:
                raise MTAdaptError(f"{self.origin}: image {images.paths[number]} is listed twice; leave one entry out")
            seen.add(path)
            folder, name = os.path.split(path)
            if folder not in files:
                files[folder] = set(os.listdir(folder or ".")) if os.path.isdir(folder or ".") else set()
            there[number] = name in files[folder]
        absent = [path for path, found in zip(images.paths, there, strict=True) if not found]
        if absent and (self.missing == "raise" or not there.any()):
            share = f"{len(absent):,} of {len(there):,}"
            remedy = "place it there, or set missing='skip' on the dataset" if there.any() else self.reader.remedy
            raise MTAdaptError(f"{self.origin}: image {absent[0]} is listed and missing ({share} are); {remedy}")
        if absent:
            print_log(f"{self.origin}: left out {len(absent):,} images that are listed and missing", logger="current")
        return ImageLabels(
            [path for path, found in zip(images.paths, there, strict=True) if found], images.scores[there]
        )

    def _summarise(self, scores: np.ndarray) -> None:
        known = (scores >= 0).any(axis=0)
        names = np.array(self.vocabulary.names)
        if not (known.any() or self.reader.may_know_nothing):
            raise MTAdaptError(
                f"{self.origin}: knows none of the {len(names)} labels for any image; check the names in labels"
            )
        unlabelled = int((scores < 0).all(axis=1).sum())
        never = [*names[~known][:10], *(["..."] if (~known).sum() > 10 else [])]
        print_log(
            f"{self.origin}: {len(scores):,} images ({unlabelled:,} without labels), {known.sum()} of {len(names)} "
            f"labels, {(scores > 0).sum() / len(scores):.1f} present an image"
            + (f"; never known here: {', '.join(never)}" if never else ""),
            logger="current",
        )
