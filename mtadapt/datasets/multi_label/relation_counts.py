"""How often relations occur in a label file, which tells which of them are worth a label."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np

from mtadapt.datasets.multi_label.bdd100k_labels import CATEGORIES, join_boxes, read_frames
from mtadapt.datasets.multi_label.coco_labels import CocoInstances
from mtadapt.datasets.multi_label.objects import ObjectNames
from mtadapt.datasets.multi_label.relations import PREDICATES, related_pairs, split_relation
from mtadapt.errors import MTAdaptError


class _Keys(msgspec.Struct):
    annotations: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


def count_relations(
    path: str, names: Mapping[str, str | Sequence[str]] | None = None, least: int = 1
) -> tuple[list[tuple[str, int]], int]:
    """Count in how many images each relation holds.

    Args:
        path: COCO instances or BDD100K detection labels.
        names: category to the name or the names of its objects.
        least: relations in fewer images are left out.

    Returns:
        Relations with their numbers of images, the most frequent first, and the number of images in the file.
        ``A left of B`` and ``B left of A`` follow each other, as a horizontal flip exchanges them, at the place of
        their mean; of ``A next to B`` and ``B next to A``, which mean the same, there is one.

    Raises:
        MTAdaptError: for a file that is missing, broken or of another format.
    """
    categories, number, (boxes, classes, ignore, images) = _read(path)
    objects = ObjectNames(categories, names, "relation_labels")
    size = len(objects.rows) + 1
    counts: np.ndarray = np.zeros(len(PREDICATES) * size**2, np.int64)
    boxes, padded, images = boxes[~ignore], objects.padded[classes[~ignore]], images[~ignore].astype(np.int64)
    for predicates, first, second in related_pairs(boxes, images):
        where = (images[first] * len(PREDICATES) + predicates)[:, None, None] * size + padded[first, :, None]
        # An image counts once, however many pairs it has.
        counts += np.bincount(np.unique(where * size + padded[second, None]) % len(counts), minlength=len(counts))
    counts = counts.reshape(len(PREDICATES), size, size)[:, :-1, :-1]
    left, near = PREDICATES.index("left of"), PREDICATES.index("next to")
    rank = counts.astype(np.float64)
    rank[left] = (rank[left] + rank[left].T) / 2
    rows = list(objects.rows)
    found = Counter(
        {
            (predicate, subject, other): rank[predicate, subject, other]
            for predicate, subject, other in zip(*(axis.tolist() for axis in counts.nonzero()), strict=True)
            if counts[predicate, subject, other] >= least and not (predicate == near and subject > other)
        }
    )
    order = sorted(found, key=lambda key: (-found[key], key[0], *sorted(key[1:]), key[1:]))
    return [(f"{rows[a]} {PREDICATES[p]} {rows[b]}", int(counts[p, a, b])) for p, a, b in order], number


def most_frequent(counts: Sequence[tuple[str, int]], top: int) -> list[tuple[str, int]]:
    """Return the first ``top`` relations of :func:`count_relations`, and one more where it mirrors the last of them."""
    chosen = list(counts[:top])
    if chosen and len(counts) > top:
        subject, predicate, other = split_relation(chosen[-1][0])
        if predicate == "left of" and counts[top][0] == f"{other} left of {subject}":
            chosen.append(counts[top])
    return chosen


def _read(path: str) -> tuple[tuple[str, ...], int, tuple[np.ndarray, ...]]:
    """Categories, number of images, and boxes, classes, ignore flags and images of all boxes."""
    try:
        raw = Path(path).read_bytes()
        coco = raw[:64].lstrip().startswith(b"{") and bool(msgspec.json.decode(raw, type=_Keys).annotations)
    except OSError as error:
        raise MTAdaptError(
            f"{path}: cannot be read ({error.strerror}); give a label file of COCO or BDD100K"
        ) from error
    except msgspec.DecodeError as error:
        raise MTAdaptError(f"{path}: broken JSON ({error}); give a label file of COCO or BDD100K") from error
    if coco:
        instances = CocoInstances.read(path)
        return tuple(one.name for one in instances.categories), len(instances.images), instances.boxes()
    frames = [*read_frames(path).values()]
    return CATEGORIES, len(frames), join_boxes(frames)
