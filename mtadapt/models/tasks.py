"""Stock models as tasks: build them under their own library's scope, and give them the samples that they know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, PixelData

from mtadapt.errors import MTAdaptError
from mtadapt.models.shared_features import SharedFeatures
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample

LIBRARIES = ("mmdet", "mmseg", "mmpretrain")


class Library(NamedTuple):
    """What a task needs to know of the library that its model comes from.

    Attributes:
        new_sample: makes an empty native sample.
        metainfo: metainfo of the native sample from that of the multi-task sample, in the library's own convention.
        unlabelled: gives a native sample ground truth that holds no label.
    """

    new_sample: Callable[[], BaseDataElement]
    metainfo: Callable[[dict], dict]
    unlabelled: Callable[[BaseDataElement], None] | None


def _det_metainfo(meta: dict) -> dict:
    return meta


def _seg_metainfo(meta: dict) -> dict:
    """The batch is of one size, and the padding (left, right, top, bottom) is cut off the logits."""
    (height, width), (batch_height, batch_width) = meta["img_shape"], meta["batch_input_shape"]
    padding = (0, batch_width - width, 0, batch_height - height)
    return {**meta, "pad_shape": meta["batch_input_shape"], "padding_size": padding}


def _no_boxes(sample: BaseDataElement) -> None:
    from mmengine.structures import InstanceData

    empty = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    sample.gt_instances, sample.ignored_instances = empty, empty.clone()


def _ignore_map(sample: BaseDataElement) -> None:
    data = torch.full((1, *sample.batch_input_shape), 255, dtype=torch.int64)
    sample.gt_sem_seg = PixelData(data=data)


def _library(name: str) -> Library:
    if name == "mmdet":
        from mmdet.structures import DetDataSample

        return Library(DetDataSample, _det_metainfo, _no_boxes)
    if name == "mmseg":
        from mmseg.structures import SegDataSample

        return Library(SegDataSample, _seg_metainfo, _ignore_map)
    from mmpretrain.structures import DataSample

    return Library(DataSample, _det_metainfo, None)


def build_task(name: str, cfg: dict) -> BaseModel:
    """Build a stock model as task ``name``.

    The library is that of ``_scope_``, else that of the type's prefix (``mmdet.FasterRCNN``). A ``data_preprocessor``
    in a pasted config is left out: the multi-task model's own serves all tasks.

    Args:
        name: the task's name, for messages.
        cfg: the stock config with ``backbone=dict(type='mtadapt.SharedFeatures')``.

    Returns:
        The model, with the attributes ``task_name`` and ``library``.

    Raises:
        MTAdaptError: when the library cannot be told, or the backbone is not ``SharedFeatures``.
    """
    cfg = ConfigDict(cfg)
    cfg.pop("data_preprocessor", None)
    kind = cfg.get("type")
    prefix = kind.split(".")[0] if isinstance(kind, str) and "." in kind else None
    scope = cfg.get("_scope_") or prefix
    if scope not in LIBRARIES:
        raise MTAdaptError(
            f"task {name!r}: type={kind!r} does not say its library; write _scope_='mmdet', 'mmseg' or 'mmpretrain'"
        )
    backbone = cfg.get("backbone") or {}
    if backbone.get("type") not in ("mtadapt.SharedFeatures", "SharedFeatures", SharedFeatures):
        raise MTAdaptError(
            f"task {name!r}: backbone={backbone.get('type')!r}; write backbone=dict(type='mtadapt.SharedFeatures')"
        )
    if (cfg.get("test_cfg") or {}).get("mode") == "slide":
        raise MTAdaptError(
            f"task {name!r}: test_cfg mode 'slide' cuts images, but tasks see features; use mode='whole'"
        )
    cfg["_scope_"] = scope
    if scope == "mmdet":
        cfg.setdefault("neck", None)
    model = MODELS.build(cfg)
    model.task_name, model.library = name, scope
    return model


def native_samples(task: BaseModel, samples: Sequence[MultiTaskDataSample]) -> list[BaseDataElement]:
    """Give the native samples of a task, with the metainfo of the batch in the library's own convention.

    A sample without that task gets a new native sample, which has no ground truth.
    """
    library = _library(task.library)
    natives = []
    for sample in samples:
        if task.task_name not in sample.tasks:
            sample.set_task(task.task_name, library.new_sample())
        native = sample.task(task.task_name)
        meta = {key: value for key, value in sample.metainfo.items() if key != "labelled_tasks"}
        native.set_metainfo(library.metainfo(meta))
        natives.append(native)
    return natives


def unlabelled_sample(task: BaseModel, sample: MultiTaskDataSample, device: torch.device) -> BaseDataElement | None:
    """A native sample whose ground truth holds no label, or None where the library has no such thing."""
    library = _library(task.library)
    if library.unlabelled is None:
        return None
    native = library.new_sample()
    native.set_metainfo(library.metainfo(dict(sample.metainfo)))
    library.unlabelled(native)
    return native.to(device)
