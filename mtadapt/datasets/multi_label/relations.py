"""Spatial relations between boxes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mtadapt.errors import MTAdaptError

#: In the order of the first axis of what :func:`spatial_relations` returns.
PREDICATES = ("left of", "above", "inside", "next to")

#: Shares of a side or an area that the rules of :func:`spatial_relations` speak of.
BESIDE = 0.5
CUT = 0.1
CONTAINED = 0.9
CLOSE = 0.5
#: Pairs of boxes that are looked at together, about.
_PAIRS = 100_000


def spatial_relations(boxes: np.ndarray) -> np.ndarray:
    """Tell of every ordered pair of boxes which spatial relations hold.

    Ours: the rules, which compare lengths of the two boxes only, so that they depend on neither the size of the image
    nor its unit. Of boxes A and B, with *overlap* the length that their projections on an axis share, and their gap the
    length between them there, negative where they overlap:

    - A is ``left of`` B: A ends before B begins, or cuts into it by at most 0.1 of the narrower box's width; and the
      vertical overlap is at least 0.5 of the lower box's height.
    - A is ``above`` B: the same with the axes exchanged, so A ends above where B begins.
    - A is ``inside`` B: at least 0.9 of A's area lies in B, and A's area is the smaller one.
    - A is ``next to`` B: the vertical overlap is at least 0.5 of the higher box's height, so the boxes are about as
      high and at one level; and the horizontal gap is at most 0.5 of the mean width and at least -0.5 of the narrower
      width.

    ``left of``, ``above`` and ``inside`` never hold in both directions, ``next to`` always does. No box has a relation
    to itself. Boxes without an area, or that are not finite, have no relations.

    Args:
        boxes: ``(n, 4)`` ``xyxy`` in any unit, half-open.

    Returns:
        ``(4, n, n)`` bool: ``[p, a, b]`` tells whether box ``a`` has the relation ``PREDICATES[p]`` to box ``b``.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    related = _relations(boxes[:, None], boxes[None])
    related[:, np.arange(len(boxes)), np.arange(len(boxes))] = False
    return related


def related_pairs(boxes: np.ndarray, images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Find the relations in many images at a time, which takes a fraction of the time of one after the other.

    Args:
        boxes: ``(n, 4)`` ``xyxy`` of all images, one image behind the other.
        images: ``(n,)`` integers, the image of every box, ascending.

    Yields:
        Of some images numbers in :data:`PREDICATES`, and boxes ``a`` and ``b`` of one image that have that relation;
        each is ``(m,)`` int64.
    """
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    _, starts, counts = np.unique(images, return_index=True, return_counts=True)
    ends = np.cumsum(counts**2)
    limits = np.searchsorted(ends, np.arange(_PAIRS, counts @ counts, _PAIRS), side="right")
    for start, count in zip(np.split(starts, limits), np.split(counts, limits), strict=True):
        first, second = _pairs(start, count)
        predicates, pairs = _relations(boxes[first], boxes[second]).nonzero()
        yield predicates, first[pairs], second[pairs]


def _pairs(start: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of different boxes of one image, of adjacent images whose boxes start there and are that many."""
    boxes = np.arange(count.sum()) + (start[0] if len(start) else 0)
    # A box is the first one of as many pairs as its image has boxes.
    partners = np.repeat(count, count)
    first = np.repeat(boxes, partners)
    number = np.arange(len(first)) - np.repeat(np.cumsum(partners) - partners, partners)
    second = np.repeat(np.repeat(start, count), partners) + number
    different = first != second
    return first[different], second[different]


def _relations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The rules for boxes A and B ``(..., 4)``, which are broadcast, as ``(4, ...)`` bool."""
    (low_a, high_a), (low_b, high_b) = (
        np.moveaxis(boxes.reshape(*boxes.shape[:-1], 2, 2), (-2, -1), (0, 1)) for boxes in (first, second)
    )
    with np.errstate(invalid="ignore"):
        sides_a, sides_b = high_a - low_a, high_b - low_b
        overlap = np.minimum(high_a, high_b) - np.maximum(low_a, low_b)
        shorter, longer = np.minimum(sides_a, sides_b), np.maximum(sides_a, sides_b)
        aside = (high_a - low_b <= CUT * shorter) & (overlap[::-1] >= BESIDE * shorter[::-1])
        area_a, area_b = sides_a[0] * sides_a[1], sides_b[0] * sides_b[1]
        common = overlap[0].clip(min=0) * overlap[1].clip(min=0)
        inside = (common >= CONTAINED * area_a) & (area_a < area_b)
        near = (-overlap[0] <= CLOSE * (shorter[0] + longer[0]) / 2) & (overlap[0] <= CLOSE * shorter[0])
        near &= overlap[1] >= BESIDE * longer[1]
        usable = (shorter > 0) & np.isfinite(longer)
    return np.stack([aside[0], aside[1], inside, near]) & usable[0] & usable[1]


def split_relation(name: str) -> tuple[str, str, str]:
    """Split ``"car left of bus"`` into subject, predicate and object.

    Raises:
        MTAdaptError: when it does not consist of two names with a known predicate between them.
    """
    for predicate in PREDICATES:
        first, found, second = name.partition(f" {predicate} ")
        if found and first.strip() and second.strip():
            return first, predicate, second
    raise MTAdaptError(
        f"labels: relation {name!r}; write '<object> <predicate> <object>' with one of the predicates "
        f"{', '.join(PREDICATES)}"
    )
