"""Object labels and relations of images from their boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mtadapt.datasets.multi_label.objects import ObjectNames
from mtadapt.datasets.multi_label.relations import PREDICATES, related_pairs
from mtadapt.datasets.multi_label.vocabulary import ABSENT, PRESENT, UNKNOWN, LabelVocabulary


class BoxLabels:
    """What the boxes of images say about the labels of a vocabulary.

    Objects and relations between them are known where the label file annotates the objects concerned, and unknown for
    all images otherwise.

    Ours: ignore regions (crowds in COCO, ``other person`` and the like in BDD100K) are no objects and have no
    relations; but as there may be one, an object or relation that would be absent becomes unknown where an ignore
    region of an object that it names is in the image.

    Args:
        vocabulary: the labels.
        categories: names of the annotated categories, in the order of their class indices.
        names: category to the name or the names that it has among the labels, see
            :class:`~mtadapt.datasets.multi_label.objects.ObjectNames`.
        reader: name of the reader, for messages.

    Raises:
        MTAdaptError: when ``names`` has a category that is not annotated.
    """

    def __init__(
        self,
        vocabulary: LabelVocabulary,
        categories: Sequence[str],
        names: Mapping[str, str | Sequence[str]] | None,
        reader: str,
    ) -> None:
        self._objects_of = ObjectNames(categories, names, reader)
        rows = self._objects_of.rows
        objects = [name for name in vocabulary.of_kind("objects") if name in rows]
        self._objects = np.array([vocabulary.index[name] for name in objects], np.int64)
        self._object_rows = np.array([rows[name] for name in objects], np.int64)
        related = [one for one in vocabulary.relations if one.subject in rows and one.object in rows]
        self._relations = np.array([one.label for one in related], np.int64)
        self._subjects = np.array([rows[one.subject] for one in related], np.int64)
        self._others = np.array([rows[one.object] for one in related], np.int64)
        # (predicates, objects + 1, objects + 1): the label of a relation, K where there is none.
        self._label_of = np.full((len(PREDICATES), len(rows) + 1, len(rows) + 1), len(vocabulary), np.int64)
        predicates = np.array([one.predicate for one in related], np.int64)
        self._label_of[predicates, self._subjects, self._others] = self._relations

    def fill(
        self, scores: np.ndarray, boxes: np.ndarray, classes: np.ndarray, ignore: np.ndarray, images: np.ndarray
    ) -> None:
        """Write the objects and relations of images into their scores.

        Args:
            scores: ``(N, K)`` int8; only labels of annotated objects are written.
            boxes: ``(n, 4)`` ``xyxy``, half-open, in pixels, of all images.
            classes: ``(n,)`` indices of categories.
            ignore: ``(n,)`` bool, True for ignore regions.
            images: ``(n,)`` int64, the row of every box's image in ``scores``, ascending.
        """
        objects = self._objects_of.padded[classes]
        real = ~ignore
        there, ignored = (np.zeros((len(scores), len(self._objects_of.rows) + 1), bool) for _ in range(2))
        there[images[real, None], objects[real]] = True
        ignored[images[ignore, None], objects[ignore]] = True
        scores[:, self._objects] = _decide(there, ignored)[:, self._object_rows]
        if len(self._relations):
            holds = np.zeros((len(scores), scores.shape[1] + 1), bool)
            boxes, objects, images = boxes[real], objects[real], images[real]
            for predicates, first, second in related_pairs(boxes, images):
                labels = self._label_of[predicates[:, None, None], objects[first, :, None], objects[second, None]]
                holds[images[first, None, None], labels] = True
            scores[:, self._relations] = _decide(
                holds[:, self._relations], ignored[:, self._subjects] | ignored[:, self._others]
            )


def _decide(holds: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    return np.where(holds, PRESENT, np.where(ignored, UNKNOWN, ABSENT)).astype(np.int8)
