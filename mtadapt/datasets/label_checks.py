"""Labels that a source would train on in silence although they mean something else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from mmengine.structures import BaseDataElement

from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample

#: Entries in which boxes are looked for.
_ENTRIES = 1000


class _Category(msgspec.Struct):
    id: int
    name: str


class _Categories(msgspec.Struct):
    categories: list[_Category]


def check_categories(source: str, dataset: Any) -> None:
    """Compare the categories of a COCO file with the classes of its dataset, and look for boxes.

    mmdet's ``CocoDataset`` numbers the classes in the order of the file's categories, whatever the order of
    ``metainfo``, and leaves out those that the file does not have.

    Args:
        source: name of the source.
        dataset: any dataset; those that read no COCO file pass.

    Raises:
        MTAdaptError: when the order or the names differ, or no image has a box.
    """
    cat_ids, path = getattr(dataset, "cat_ids", None), getattr(dataset, "ann_file", None)
    if cat_ids is None or not isinstance(path, str) or not Path(path).is_file():
        return
    names = {one.id: one.name for one in msgspec.json.decode(Path(path).read_bytes(), type=_Categories).categories}
    found = tuple(names[number] for number in cat_ids)
    classes = tuple(dataset.metainfo["classes"])
    if found != classes:
        raise MTAdaptError(
            f"source {source!r}: {path} has the categories {_shown(found)} in this order, metainfo the classes "
            f"{_shown(classes)}; labels are numbered in the order of the file, so write classes in that order"
        )
    entries = min(len(dataset), _ENTRIES)
    if not any(dataset.get_data_info(number).get("instances") for number in range(entries)):
        raise MTAdaptError(f"source {source!r}: none of the first {entries} images in {path} has a box")


def check_ids(source: str, task: str, sample: MultiTaskDataSample, classes: Sequence[str] | None) -> None:
    """Refuse class ids beyond the classes, on one sample.

    Raises:
        MTAdaptError: naming the file and the id.
    """
    ids = _ids(sample.task(task))
    if classes and ids and max(ids) >= len(classes):
        raise MTAdaptError(
            f"source {source!r}: {sample.get('img_path')} has class id {max(ids)} for task {task!r} of {len(classes)} "
            f"classes (0 to {len(classes) - 1}, in maps 255 = ignore); see reduce_zero_label and metainfo"
        )


def _ids(native: BaseDataElement) -> set[int]:
    if "gt_sem_seg" in native:
        return set(native.gt_sem_seg.data.unique().tolist()) - {255}
    if "gt_instances" in native:
        return set(native.gt_instances.labels.tolist())
    return set(native.gt_label.flatten().tolist()) if "gt_label" in native else set()


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
