"""Images of several sizes in one step: each group of equal size passes the backbone by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.routed_rows import RoutedRows
from mtadapt.structures import MultiTaskDataSample

#: What a stock model's ``loss`` gives: lists hold one value a level.
Losses = dict[str, Tensor | list[Tensor]]


@dataclass
class ImageGroup:
    """Images that pass the backbone together.

    Attributes:
        images: ``(N, 3, H, W)``.
        samples: one an image.
        features: name to levels ``(R, C_i, H_i, W_i)``; their rows are the images, or those of ``routed``.
        scores: of each level, task name to the score map of its classes.
        routed: images and tasks of the rows, where the backbone's features depend on the task.
    """

    images: Tensor
    samples: list[MultiTaskDataSample]
    features: dict[str, tuple[Tensor, ...]]
    scores: list[dict[str, Tensor]]
    routed: RoutedRows | None = None

    def served(self, task: str) -> list[int]:
        """Rows of the features that are for a task."""
        if self.routed is None:
            return list(range(len(self.samples)))
        return [row for row, tasks in enumerate(self.routed.served) if task in tasks]

    def rows(self, task: str) -> list[int]:
        """Rows of the features that are for a task and whose images are labelled for it."""
        rows = self.served(task)
        return [row for row, sample in zip(rows, self.samples_of(rows), strict=True) if task in sample.labelled_tasks]

    def samples_of(self, rows: Sequence[int]) -> list[MultiTaskDataSample]:
        """Samples of rows of the features."""
        images = rows if self.routed is None else [self.routed.images[row] for row in rows]
        return [self.samples[image] for image in images]

    def select(self, levels: tuple[Tensor, ...], rows: Sequence[int]) -> tuple[Tensor, ...]:
        """Cut out rows of the features.

        Args:
            levels: ``(R, C_i, H_i, W_i)``.
            rows: ascending.
        """
        if len(rows) == len(levels[0]):
            return levels
        if self.routed is not None and rows[-1] - rows[0] + 1 == len(rows):
            return tuple(level[rows[0] : rows[-1] + 1] for level in levels)
        index = torch.tensor(rows, device=levels[0].device)
        return tuple(level.index_select(0, index) for level in levels)


def split_samples(
    images: Tensor | Sequence[Tensor], samples: Sequence[MultiTaskDataSample]
) -> list[tuple[Tensor, list[MultiTaskDataSample]]]:
    """Give every group of images its samples, which follow each other in the order of the groups."""
    groups = [images] if isinstance(images, Tensor) else images
    ends = torch.tensor([len(group) for group in groups]).cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    return [(group, list(samples[start:end])) for group, start, end in zip(groups, starts, ends, strict=True)]


def mean_losses(parts: Sequence[tuple[int, Losses]]) -> Losses:
    """One task's losses in several groups of images, averaged by the number of labelled images.

    Args:
        parts: number of images and losses of each group.

    Ours: stock losses are means over a batch, and this is their mean over the batch that the groups make together.
    """
    if len(parts) == 1:
        return parts[0][1]
    total = sum(count for count, _ in parts)
    names = dict.fromkeys(name for _, losses in parts for name in losses)
    mean: Losses = {}
    for name in names:
        mean[name] = torch.stack(
            [count / total * _total(losses[name]) for count, losses in parts if name in losses]
        ).sum()
    return mean


def _total(value: Tensor | list[Tensor]) -> Tensor:
    """One number, as MMEngine's ``parse_losses`` makes it."""
    return torch.stack([item.mean() for item in value]).sum() if isinstance(value, list) else value.mean()


def group_rows(
    sources: Sequence[str], merge_sources: str | Sequence[Sequence[str]] | None, keep_order: bool
) -> list[list[int]]:
    """Rows of a batch by the group of their source.

    Args:
        sources: source of every row.
        merge_sources: lists of sources that make one group; ``all``, or None for a group a source.
        keep_order: group only rows that follow each other.

    Returns:
        Rows of each group.
    """
    if isinstance(merge_sources, str):
        return [list(range(len(sources)))]
    merged = {name: names[0] for names in merge_sources or () for name in names}
    keys = [merged.get(name, name) for name in sources]
    order = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    rows = range(len(keys)) if keep_order else sorted(range(len(keys)), key=lambda row: order[keys[row]])
    return [list(group) for _, group in groupby(rows, key=lambda row: keys[row])]


def check_merge_sources(merge_sources: Any) -> None:
    """Refuse what :func:`group_rows` does not know.

    Raises:
        MTAdaptError: when a source is in two groups, or the setting has another form.
    """
    if merge_sources is None or merge_sources == "all":
        return
    lists = isinstance(merge_sources, (list, tuple)) and all(isinstance(part, (list, tuple)) for part in merge_sources)
    if not lists:
        raise MTAdaptError(
            f"MultiTaskDataPreprocessor: merge_sources={merge_sources!r}; write 'all' or lists of names: [['a', 'b']]"
        )
    names = [name for group in merge_sources for name in group]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise MTAdaptError(f"MultiTaskDataPreprocessor: merge_sources names {', '.join(twice)} twice")


def labelled_by_source(samples: Sequence[MultiTaskDataSample]) -> set[str] | None:
    """Tasks that the batch's sources can label, the same on all processes; None when the samples do not tell."""
    known: set[str] = set()
    for sample in samples:
        tasks: Sequence[str] | None = sample.get("source_tasks")
        if tasks is None:
            return None
        known.update(tasks)
    return known
