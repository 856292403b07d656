"""Names and colours of the classes of a model's tasks, without reading a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from torch import nn

from mtadapt.models.tasks import num_classes
from mtadapt.registry import DATASETS


def dataset_meta(config: Config, model: nn.Module, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Metainfo with the classes of every task, from the first place that knows them.

    The places are the checkpoint, the datasets of the config (their ``metainfo``, else what their class says), the
    prompts of an adapter, and numbers.

    Args:
        config: of the run.
        model: built from it.
        stored: metainfo in the checkpoint.

    Returns:
        ``tasks``: task to its ``classes`` and, where it is known, ``palette``.
    """
    known: dict[str, dict[str, Any]] = {}
    tasks: Any = model.tasks
    for found in (_of(stored), *_of_datasets(config), _of_prompts(model)):
        for name, meta in found.items():
            if name in tasks and meta.get("classes") and name not in known:
                known[name] = dict(meta, classes=tuple(meta["classes"]))
    for name, task in tasks.items():
        if name not in known:
            known[name] = dict(classes=tuple(f"class {number}" for number in range(num_classes(task) or 0)))
    return dict(tasks={name: known[name] for name in tasks})


def _of(meta: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    tasks = meta.get("tasks")
    return tasks if isinstance(tasks, Mapping) else {}


def _of_datasets(config: Config) -> Iterator[Mapping[str, Mapping[str, Any]]]:
    for split in ("test", "val", "train"):
        dataset = (config.get(f"{split}_dataloader") or {}).get("dataset") or {}
        sources = dataset.get("sources")
        if not isinstance(sources, Mapping):
            yield _of(_own_meta(dataset))
            continue
        for source in sources.values():
            own = _own_meta(source.get("dataset") or {})
            yield _of(own) or dict.fromkeys(source.get("tasks") or (), own)


def _own_meta(dataset: Mapping[str, Any]) -> Mapping[str, Any]:
    kind = dataset.get("type")
    try:
        found = DATASETS.get(kind) if isinstance(kind, str) else kind
    except ImportError:
        found = None
    return {**(getattr(found, "METAINFO", None) or {}), **(dataset.get("metainfo") or {})}


def _of_prompts(model: nn.Module) -> dict[str, dict[str, Any]]:
    classes = getattr(getattr(model, "adapter", None), "classes", None) or {}
    return {name: dict(classes=tuple(names)) for name, names in classes.items()}
