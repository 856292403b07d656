"""Stock models as tasks: build them under their own library's scope, and give them the samples that they know."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, PixelData
from torch.nn import ModuleList, SyncBatchNorm
from torch.nn.modules.batchnorm import _BatchNorm

from mtadapt.datasets.transforms.formatting import META_KEYS
from mtadapt.errors import MTAdaptError
from mtadapt.models.losses.balancing import ROUTING
from mtadapt.models.shared_features import SharedFeatures
from mtadapt.registry import LIBRARIES, MODELS
from mtadapt.structures import MultiTaskDataSample

#: Metainfo of a sample, from the pipeline and from the data preprocessor.
RESERVED = (*META_KEYS, "pad_shape", "batch_input_shape")


class Library(NamedTuple):
    """What a task needs to know of the library that its model comes from.

    Attributes:
        new_sample: makes an empty native sample.
        metainfo: metainfo of the native sample from that of the multi-task sample, in the library's own convention.
        unlabelled: gives a native sample ground truth that holds no label.
    """

    new_sample: Callable[[], BaseDataElement]
    metainfo: Callable[[dict], dict]
    unlabelled: Callable[[BaseModel, BaseDataElement], None] | None


def _det_metainfo(meta: dict) -> dict:
    return meta


def _seg_metainfo(meta: dict) -> dict:
    """The batch is of one size, and the padding (left, right, top, bottom) is cut off the logits."""
    (height, width), (batch_height, batch_width) = meta["img_shape"], meta["batch_input_shape"]
    padding = (0, batch_width - width, 0, batch_height - height)
    return {**meta, "pad_shape": meta["batch_input_shape"], "padding_size": padding}


def _no_boxes(task: BaseModel, sample: BaseDataElement) -> None:
    from mmengine.structures import InstanceData

    empty = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
    sample.gt_instances, sample.ignored_instances = empty, empty.clone()


def _ignore_map(task: BaseModel, sample: BaseDataElement) -> None:
    head = task.decode_head
    ignored = getattr(head[-1] if isinstance(head, ModuleList) else head, "ignore_index", 255)
    data = torch.full((1, *sample.batch_input_shape), ignored, dtype=torch.int64)
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
    and mmseg's ``pretrained`` in a pasted config are left out: preprocessor and backbone are those of the multi-task
    model.

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
    # mmseg would hand it to the backbone, which here has no weights of its own.
    cfg.pop("pretrained", None)
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


def check_task_name(name: str) -> None:
    """Refuse names that samples or logs use for something else.

    Raises:
        MTAdaptError: for a name that is no identifier, contains "loss", is an attribute of the sample, or stands for
            the routing of the backbone in logs.
    """
    if not name.isidentifier() or name.startswith("_") or "loss" in name:
        raise MTAdaptError(f"task name {name!r}: use letters, digits and underscores, and not the word 'loss'")
    if hasattr(MultiTaskDataSample, name) or name in RESERVED:
        raise MTAdaptError(f"task name {name!r} is an attribute of the samples; choose another one")
    if name == ROUTING:
        raise MTAdaptError(f"task name {name!r} is that of the backbone's routing in logs; choose another one")


def check_prompts(classes: Mapping[str, Sequence[str]], tasks: Mapping[str, BaseModel]) -> None:
    """Compare the classes of a prompt table with the tasks and the number of classes of their heads.

    Raises:
        MTAdaptError: for an unknown task, or another number of classes.
    """
    for name, names in classes.items():
        if name not in tasks:
            raise MTAdaptError(f"prompts of unknown task {name!r}; tasks: {', '.join(tasks)}")
        expected = num_classes(tasks[name])
        if expected is not None and expected != len(names):
            raise MTAdaptError(f"prompts[{name!r}] has {len(names)} classes, the task's head has {expected}")


def num_classes(task: BaseModel) -> int | None:
    """Number of classes of a stock model's last head, where it says so."""
    heads = [getattr(getattr(task, "roi_head", None), "bbox_head", None)]
    heads += [getattr(task, name, None) for name in ("decode_head", "bbox_head", "head")]
    for head in heads:
        last = head[-1] if isinstance(head, ModuleList) else head
        if isinstance(number := getattr(last, "num_classes", None), int):
            return number
    return None


@contextmanager
def frozen_batch_norm(task: BaseModel, when: bool) -> Iterator[None]:
    """Run the task's batch norms with their running statistics, and leave these as they are.

    Synchronised ones go on: their collective calls need every process, and the other processes' images fill them.
    """
    norms = [
        module
        for module in task.modules()
        if when and module.training and isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm)
    ]
    for norm in norms:
        norm.eval()
    try:
        yield
    finally:
        for norm in norms:
            norm.train()


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
    library.unlabelled(task, native)
    return native.to(device)
