"""Label settings: which images keep the labels of which tasks.

Reference:
    `Effective Adaptation in Multi-Task Co-Training for Unified Autonomous Driving
    <https://arxiv.org/abs/2209.08953>`_ compares full and disjoint labels. Ours: the counts and the way of drawing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import combinations

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from mtadapt.errors import MTAdaptError

#: Images a task in each disjoint setting.
DEFAULT_COUNTS: dict[str, dict[str, int]] = {
    "disjoint_normal": dict(det=10_000, drivable=20_000, sem_seg=7_000),
    "disjoint_balance": dict(det=7_000, drivable=7_000, sem_seg=7_000),
}


def apply_label_setting(
    labels: Mapping[str, tuple[str, ...]],
    setting: str = "full",
    counts: Mapping[str, int] | None = None,
    seed: int = 0,
) -> dict[str, tuple[str, ...]]:
    """Choose the tasks whose labels each image keeps.

    ``full`` keeps everything. In ``disjoint_normal`` and ``disjoint_balance`` an image keeps the labels of one task and
    ``counts`` says how many images each task gets; images that are left over are dropped. Where there are too few
    images, all counts shrink by the same factor. Ours: images are drawn in the order of a hash of seed and name, so the
    choice does not depend on the order of the files; a maximum flow shares out the images that several tasks could use.

    Args:
        labels: image name to the tasks that it is labelled for.
        setting: ``full``, ``disjoint_normal`` or ``disjoint_balance``.
        counts: images a task; overrides :data:`DEFAULT_COUNTS`, required for tasks that are not listed there.
        seed: seed of the draw.

    Returns:
        Image name to the tasks that it keeps, without the images that keep none.

    Raises:
        MTAdaptError: for an unknown setting or task, or a task without a count.
    """
    tasks = sorted({task for names in labels.values() for task in names})
    if setting == "full":
        if counts:
            raise MTAdaptError("label_setting 'full' keeps every label; counts belong to the disjoint settings")
        return {name: names for name, names in labels.items() if names}
    if setting not in DEFAULT_COUNTS:
        raise MTAdaptError(f"unknown label_setting {setting!r}; known: full, {', '.join(DEFAULT_COUNTS)}")
    unknown = set(counts or ()) - set(tasks)
    if unknown:
        raise MTAdaptError(f"label_setting counts name unlabelled tasks {sorted(unknown)}; labelled: {tasks}")
    wanted = {**DEFAULT_COUNTS[setting], **(counts or {})}
    missing = [task for task in tasks if task not in wanted]
    if missing:
        raise MTAdaptError(f"label_setting {setting!r} has no count for {missing}; add it to counts")
    quota = _feasible_counts(labels, {task: wanted[task] for task in tasks})
    order = sorted(labels, key=lambda name: hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=8).digest())
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in order:
        groups.setdefault(tuple(sorted(labels[name])), []).append(name)
    kept: dict[str, tuple[str, ...]] = {}
    for (group, task), number in _shares(groups, quota).items():
        free = [name for name in groups[group] if name not in kept][:number]
        kept.update((name, (task,)) for name in free)
    return {name: kept[name] for name in labels if name in kept}


def _shares(
    groups: Mapping[tuple[str, ...], list[str]], quota: Mapping[str, int]
) -> dict[tuple[tuple[str, ...], str], int]:
    """How many images of each group (those with labels of the same tasks) each task gets: a maximum flow."""
    names, tasks = sorted(groups), sorted(quota)
    source, sink = 0, 1 + len(names) + len(tasks)
    capacity = np.zeros((sink + 1, sink + 1), np.int32)
    for row, group in enumerate(names, 1):
        capacity[source, row] = len(groups[group])
        for column, task in enumerate(tasks, 1 + len(names)):
            capacity[row, column] = len(groups[group]) if task in group else 0
    for column, task in enumerate(tasks, 1 + len(names)):
        capacity[column, sink] = quota[task]
    flow = maximum_flow(csr_array(capacity), source, sink).flow.toarray()
    return {
        (group, task): int(flow[row, column])
        for row, group in enumerate(names, 1)
        for column, task in enumerate(tasks, 1 + len(names))
        if flow[row, column] > 0
    }


def _feasible_counts(labels: Mapping[str, tuple[str, ...]], counts: Mapping[str, int]) -> dict[str, int]:
    """Scale the counts by one factor so that Hall's condition holds: every group of tasks finds enough images."""
    groups: dict[frozenset[str], int] = {}
    for names in labels.values():
        groups[frozenset(names)] = groups.get(frozenset(names), 0) + 1
    factor = 1.0
    for size in range(1, len(counts) + 1):
        for group in combinations(counts, size):
            supply = sum(number for names, number in groups.items() if names & set(group))
            demand = sum(counts[task] for task in group)
            factor = min(factor, supply / demand) if demand else factor
    return {task: int(number * factor + 1e-9) for task, number in counts.items()}
