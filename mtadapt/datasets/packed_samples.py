"""Turn what each library's pipeline packs into a multi-task sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.structures import BaseDataElement, PixelData

from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample


def to_multi_task(packed: BaseDataElement, kinds: Mapping[str, str | None]) -> MultiTaskDataSample:
    """Give a sample of mmdet, mmseg, mmpretrain or this package as a multi-task sample.

    Args:
        packed: a ``DetDataSample``, ``SegDataSample``, mmpretrain's ``DataSample``, or a multi-task sample, which is
            returned as it is.
        kinds: the source's tasks, and of each whether its labels are ``boxes``, a ``map`` or a ``label``; with None
            they are what the sample has.

    Returns:
        The sample, with the metainfo of ``packed`` and the tasks that it is labelled for in ``labelled_tasks``.
    """
    if isinstance(packed, MultiTaskDataSample):
        return packed
    sample = MultiTaskDataSample()
    add_metainfo(sample, packed.metainfo_items())
    labelled = []
    for task, kind in kinds.items():
        readers = [_NATIVE[kind]] if kind else _NATIVE.values()
        native = next((found for read in readers if (found := read(packed)) is not None), None)
        if native is not None:
            sample.set_task(task, native)
            labelled.append(task)
    add_metainfo(sample, [("labelled_tasks", tuple(labelled))])
    return sample


def add_metainfo(sample: BaseDataElement, items: Iterable[tuple[str, Any]]) -> None:
    """Add metainfo without the deep copy of ``set_metainfo``, which takes longer than decoding a small image."""
    for name, value in items:
        sample.set_field(value, name, field_type="metainfo", dtype=None)


def _boxes(packed: BaseDataElement) -> BaseDataElement | None:
    return packed if "gt_instances" in packed and "bboxes" in packed.gt_instances else None


def _map(packed: BaseDataElement) -> BaseDataElement | None:
    from mmseg.structures import SegDataSample

    if "gt_sem_seg" not in packed:
        return None
    if isinstance(packed, SegDataSample):
        return packed
    # mmdet keeps the map of a panoptic sample under another name.
    seg_map = packed.gt_sem_seg.get("sem_seg")
    if seg_map is None:
        return None
    return SegDataSample(gt_sem_seg=PixelData(data=seg_map), metainfo=dict(packed.metainfo))


def _label(packed: BaseDataElement) -> BaseDataElement | None:
    return packed if "gt_label" in packed else None


_NATIVE = dict(boxes=_boxes, map=_map, label=_label)


def kinds_of(tasks: object, source: str, defaults: Mapping[str, str]) -> dict[str, str | None]:
    """Task to the kind of its labels, from a list of tasks or from a dictionary.

    Args:
        tasks: what the source's config says.
        source: the source's name, for messages.
        defaults: kinds of the tasks that need not say them.

    Returns:
        Task to kind; None where the sample has to tell.

    Raises:
        MTAdaptError: when it is neither, or names an unknown kind.
    """
    if isinstance(tasks, Mapping) and tasks:
        unknown = {task: kind for task, kind in tasks.items() if kind not in _NATIVE}
        if unknown:
            raise MTAdaptError(f"source {source!r}: unknown kinds of labels {unknown}; known: {', '.join(_NATIVE)}")
        return dict(tasks)
    if isinstance(tasks, (list, tuple)) and tasks and all(isinstance(task, str) for task in tasks):
        return {task: defaults.get(task) for task in tasks}
    raise MTAdaptError(f"source {source!r}: tasks={tasks!r}; write a list such as tasks=['det']")
