"""Relations of boxes against rules written out pair by pair, and what they do under scaling and mirroring."""

from __future__ import annotations

import numpy as np
import pytest

from mtadapt.datasets.multi_label import PREDICATES, relations, spatial_relations
from mtadapt.datasets.multi_label.relations import split_relation
from mtadapt.errors import MTAdaptError

LEFT, ABOVE, INSIDE, NEXT = range(4)


def boxes_of(seed: int, number: int = 40) -> np.ndarray:
    """Boxes on a coarse grid, so that sides touch and coincide often."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, 30, (number, 2))
    return np.concatenate([corners, corners + rng.integers(1, 12, (number, 2))], axis=1).astype(float)


def overlap(first, second, axis: int) -> float:
    return min(first[axis + 2], second[axis + 2]) - max(first[axis], second[axis])


def sides(box, axis: int) -> float:
    return box[axis + 2] - box[axis]


def before(first, second, axis: int) -> bool:
    """The docstring's rule of ``left of`` (axis 0) and ``above`` (axis 1)."""
    other = 1 - axis
    cuts = first[axis + 2] - second[axis]
    ends = cuts <= 0 or cuts <= 0.1 * min(sides(first, axis), sides(second, axis))
    return ends and overlap(first, second, other) >= 0.5 * min(sides(first, other), sides(second, other))


def inside(first, second) -> bool:
    area = sides(first, 0) * sides(first, 1)
    common = max(0, overlap(first, second, 0)) * max(0, overlap(first, second, 1))
    return common >= 0.9 * area and area < sides(second, 0) * sides(second, 1)


def next_to(first, second) -> bool:
    gap = -overlap(first, second, 0)
    widths = sides(first, 0), sides(second, 0)
    level = overlap(first, second, 1) >= 0.5 * max(sides(first, 1), sides(second, 1))
    return level and -0.5 * min(widths) <= gap <= 0.5 * sum(widths) / 2


@pytest.mark.parametrize("seed", range(5))
def test_relations_are_those_of_the_rules(seed: int):
    boxes = boxes_of(seed)
    rules = (lambda a, b: before(a, b, 0), lambda a, b: before(a, b, 1), inside, next_to)
    expected = np.array(
        [[[i != j and rule(a, b) for j, b in enumerate(boxes)] for i, a in enumerate(boxes)] for rule in rules]
    )
    found = spatial_relations(boxes)
    assert found.dtype == bool and found.shape == (len(PREDICATES), 40, 40)
    assert (found == expected).all() and expected.any(axis=(1, 2)).all()


@pytest.mark.parametrize("seed", range(5))
def test_directions(seed: int):
    found = spatial_relations(boxes_of(seed))
    for predicate in (LEFT, ABOVE, INSIDE):
        assert not (found[predicate] & found[predicate].T).any(), PREDICATES[predicate]
    assert (found[NEXT] == found[NEXT].T).all()
    assert not found[:, np.arange(40), np.arange(40)].any(), "no box has a relation to itself"
    assert not (found[LEFT] & found[ABOVE]).any() and not (found[INSIDE] & (found[LEFT] | found[NEXT])).any()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("scale", [2.0**-7, 1024.0])
def test_size_and_place_of_the_image_do_not_matter(seed: int, scale: float):
    boxes = boxes_of(seed)
    assert (spatial_relations(boxes * scale + 64 * scale) == spatial_relations(boxes)).all()


@pytest.mark.parametrize("seed", range(3))
def test_mirroring_exchanges_left_and_right_alone(seed: int):
    boxes = boxes_of(seed)
    mirrored = boxes.copy()
    mirrored[:, [0, 2]] = 64 - boxes[:, [2, 0]]
    found, other = spatial_relations(boxes), spatial_relations(mirrored)
    assert (other[LEFT] == found[LEFT].T).all() and (other[1:] == found[1:]).all()
    turned = spatial_relations(boxes[:, [1, 0, 3, 2]])
    assert (turned[LEFT] == found[ABOVE]).all() and (turned[INSIDE] == found[INSIDE]).all()


def test_the_limits_belong_to_the_relation():
    """A box of 10 x 10 against another one at and beyond each limit; the default is at (20, 0)."""

    def holds(predicate: int, box: tuple[float, ...]) -> bool:
        return bool(spatial_relations(np.array([[0, 0, 10, 10], box]))[predicate, 0, 1])

    assert holds(LEFT, (9, 0, 19, 10)) and not holds(LEFT, (8.9, 0, 18.9, 10))
    assert holds(LEFT, (20, 5, 30, 15)) and not holds(LEFT, (20, 5.1, 30, 15.1))
    assert holds(LEFT, (20, 0, 30, 100)), "the lower box counts"
    assert holds(NEXT, (15, 0, 25, 10)) and not holds(NEXT, (15.1, 0, 25.1, 10))
    assert holds(NEXT, (5, 0, 15, 10)) and not holds(NEXT, (4.9, 0, 14.9, 10))
    assert holds(NEXT, (12, 0, 22, 20)) and not holds(NEXT, (12, 0, 22, 20.1)), "the higher box counts"
    assert holds(INSIDE, (1, 0, 31, 30)) and not holds(INSIDE, (1.1, 0, 31, 30))
    assert not holds(INSIDE, (0, 0, 10, 10)), "equal boxes are not inside each other"


def test_no_boxes_and_boxes_without_area():
    assert spatial_relations(np.zeros((0, 4))).shape == (4, 0, 0)
    odd = np.array([[0, 0, 10, 10], [5, 5, 5, 8], [9, 9, 2, 2], [np.nan, 0, 5, 5], [0, 0, np.inf, 5], [12, 0, 22, 10]])
    found = spatial_relations(odd)
    assert found[:, 1:5].sum() == found[:, :, 1:5].sum() == 0
    assert found[LEFT, 0, 5] and found[NEXT, 0, 5] and found[NEXT, 5, 0] and found.sum() == 3


@pytest.mark.parametrize("pairs", [1, 100, 10**6])
def test_many_images_at_a_time(pairs: int, monkeypatch):
    """Whatever the number of pairs that are looked at together, they are those of one image after the other."""
    monkeypatch.setattr(relations, "_PAIRS", pairs)
    boxes, images = boxes_of(7, 300), np.sort(np.random.default_rng(0).choice([0, 2, 3, 9, 50, 51], 300))
    expected = {
        (predicate, *np.flatnonzero(images == image)[[a, b]].tolist())
        for image in images
        for predicate, a, b in zip(*spatial_relations(boxes[images == image]).nonzero(), strict=True)
    }
    found = [triple for part in relations.related_pairs(boxes, images) for triple in zip(*part, strict=True)]
    assert set(found) == expected and len(found) == len(expected) > 1000
    assert not any(len(part[0]) for part in relations.related_pairs(np.zeros((0, 4)), np.zeros(0, int)))


def test_names_of_relations():
    assert split_relation("traffic light above car") == ("traffic light", "above", "car")
    assert split_relation("car next to traffic sign") == ("car", "next to", "traffic sign")
    with pytest.raises(MTAdaptError, match=r"relation 'car behind bus'; write '<object> <predicate> <object>' with"):
        split_relation("car behind bus")
    with pytest.raises(MTAdaptError, match="relation 'left of car'"):
        split_relation("left of car")
