"""Label settings: what is kept, how much of it, and that it never depends on the order of the files."""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np
import pytest

from mtadapt.datasets import BDD100KDataset, apply_label_setting
from mtadapt.errors import MTAdaptError
from tests.conftest import Tree


def real_like(scale: int = 100) -> dict[str, tuple[str, ...]]:
    """BDD100K's proportions: 70k with det and drivable, 7k with sem_seg, of which 3k are the same images."""
    both = {f"h{number:05d}": ("det", "drivable") for number in range(67_000 // scale)}
    all_three = {f"x{number:05d}": ("det", "sem_seg", "drivable") for number in range(3_000 // scale)}
    return {**both, **all_three, **{f"t{number:05d}": ("sem_seg",) for number in range(4_000 // scale)}}


def counts(kept: dict[str, tuple[str, ...]]) -> Counter:
    return Counter(task for tasks in kept.values() for task in tasks)


def test_full_keeps_every_label():
    labels = {**real_like(), "nothing": ()}
    assert apply_label_setting(labels) == real_like()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("disjoint_normal", dict(det=10_000, drivable=20_000, sem_seg=7_000)),
        ("disjoint_balance", dict(det=7_000, drivable=7_000, sem_seg=7_000)),
    ],
)
def test_default_counts_at_the_real_size(setting: str, expected: dict):
    labels = real_like(scale=1)
    kept = apply_label_setting(labels, setting)
    assert counts(kept) == expected
    assert all(len(tasks) == 1 for tasks in kept.values())
    assert all(set(kept[name]) <= set(labels[name]) for name in kept)


def test_counts_are_configurable_and_exact():
    kept = apply_label_setting(real_like(), "disjoint_normal", dict(det=11, drivable=7, sem_seg=70))
    assert counts(kept) == dict(det=11, drivable=7, sem_seg=70)


def test_too_few_images_shrink_all_counts_alike():
    labels = {f"{number}": ("det", "sem_seg", "drivable") for number in range(37)}
    assert counts(apply_label_setting(labels, "disjoint_normal")) == dict(det=10, drivable=20, sem_seg=7)
    labels = {f"{number}": ("det", "sem_seg", "drivable") for number in range(300)}
    assert counts(apply_label_setting(labels, "disjoint_balance")) == dict(det=100, drivable=100, sem_seg=100)


@pytest.mark.parametrize("seed", range(20))
def test_feasible_counts_are_met_for_any_mix_of_labels(seed: int):
    rng = np.random.default_rng(seed)
    kinds = [("det",), ("drivable",), ("sem_seg",), ("det", "drivable"), ("det", "sem_seg"), ("drivable", "sem_seg")]
    assignment = [kinds[number % 3][0] for number in range(27)]
    labels = {}
    for number, task in enumerate(assignment):
        able = [kind for kind in kinds if task in kind]
        labels[f"{number}"] = able[rng.integers(len(able))]
    kept = apply_label_setting(labels, "disjoint_balance", dict(Counter(assignment)))
    assert counts(kept) == Counter(assignment)
    assert all(kept[name][0] in labels[name] for name in kept)


def test_same_choice_for_any_order_and_another_for_another_seed():
    labels = real_like()
    backwards = dict(reversed(labels.items()))
    options = dict(setting="disjoint_balance", counts=dict(det=50, drivable=50, sem_seg=50))
    first = apply_label_setting(labels, **options)
    assert apply_label_setting(backwards, **options) == first
    assert list(first) == [name for name in labels if name in first]
    assert apply_label_setting(labels, **options, seed=1) != first


def test_choice_is_frozen():
    """A golden choice: whoever trains on a disjoint setting gets the same images with the next version."""
    labels = {f"{number}": ("det", "drivable") for number in range(8)}
    kept = apply_label_setting(labels, "disjoint_balance", dict(det=2, drivable=3))
    assert kept == GOLDEN


GOLDEN = {
    "2": ("drivable",),
    "3": ("det",),
    "4": ("drivable",),
    "5": ("drivable",),
    "7": ("det",),
}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(setting="none"), "unknown label_setting 'none'; known: full, disjoint_normal, disjoint_balance"),
        (dict(setting="full", counts=dict(det=1)), "'full' keeps every label"),
        (dict(setting="disjoint_balance", counts=dict(lane=1)), r"unlabelled tasks \['lane'\]"),
    ],
)
def test_errors(options: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        apply_label_setting(real_like(), **options)


def test_task_without_a_count():
    with pytest.raises(MTAdaptError, match=r"'disjoint_balance' has no count for \['lane'\]"):
        apply_label_setting({"a": ("lane",)}, "disjoint_balance")


def test_dataset_keeps_one_task_an_image(bdd: Tree, caplog: pytest.LogCaptureFixture):
    setting = dict(name="disjoint_balance", counts=dict(det=1, sem_seg=1, drivable=1), seed=3)
    from mmengine.logging import MMLogger

    MMLogger.get_instance("label_settings").addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        dataset = BDD100KDataset(data_root=str(bdd.root), label_setting=setting, pipeline=[])
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    assert sorted(info["labelled_tasks"] for info in infos) == [("det",), ("drivable",), ("sem_seg",)]
    assert "label setting disjoint_balance" in caplog.text
