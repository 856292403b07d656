"""The test pipelines of a config, fed with decoded images instead of a dataset's entries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmcv.transforms import Compose
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from mtadapt.datasets.packed_samples import add_metainfo, to_multi_task
from mtadapt.errors import MTAdaptError, first_line
from mtadapt.registry import LIBRARIES

#: Stands for the dataset in the samples, so that the model predicts the tasks in ``labelled_tasks`` alone.
SOURCE = "inference"


class TestPipeline(NamedTuple):
    """One test pipeline and the tasks whose data it prepares.

    Attributes:
        tasks: names of tasks of the model.
        transforms: of the dataset, without those that load.
        to_float: whether images are converted to float32 before.
    """

    tasks: tuple[str, ...]
    transforms: Compose
    to_float: bool

    def __call__(self, image: np.ndarray, name: str, tasks: Sequence[str]) -> dict[str, Any]:
        """Prepare an image.

        Args:
            image: BGR ``(H, W, 3)`` uint8.
            name: of the image.
            tasks: those to predict.

        Returns:
            ``inputs`` ``(3, h, w)`` and ``data_samples``, a :class:`~mtadapt.structures.MultiTaskDataSample`.
        """
        size = image.shape[:2]
        entry: dict[str, Any] = dict(img=image, img_path=name, img_id=0, img_shape=size, ori_shape=size)
        if self.to_float:
            entry["img"] = image.astype(np.float32)
        packed = self.transforms(entry)
        sample = to_multi_task(packed["data_samples"], {})
        add_metainfo(sample, dict(source=SOURCE, labelled_tasks=tuple(tasks)).items())
        return dict(inputs=packed["inputs"], data_samples=sample)


def test_pipelines(config: Mapping[str, Any], tasks: Sequence[str]) -> list[TestPipeline]:
    """The pipelines of the test data, else of the validation data.

    Where several sources make the data, each task is predicted with the pipeline of the source that labels it. A task
    of no source goes through the first pipeline.

    Raises:
        MTAdaptError: when the config has none, or one cannot be built.
    """
    dataset = _dataset(config, "test") or _dataset(config, "val")
    if dataset is None:
        raise MTAdaptError(
            f"{getattr(config, 'filename', None) or 'the config'}: has neither a test_dataloader nor a val_dataloader; "
            "inference needs its pipeline"
        )
    due = list(tasks)
    found: dict[str, tuple[list[str], ConfigDict]] = {}
    for own, each in _sources(dataset):
        if each.get("pipeline") is None:
            raise MTAdaptError(f"dataset {each.get('type')!r} of the test data: has no pipeline; inference needs it")
        chosen = [task for task in due if own is None or task in own]
        due = [task for task in due if task not in chosen]
        entry = found.setdefault(repr((_scope(each), each["pipeline"])), ([], each))
        entry[0].extend(chosen)
    if due:
        next(iter(found.values()))[0].extend(due)
    return [_build(names, each) for names, each in found.values() if names]


def _dataset(config: Mapping[str, Any], split: str) -> ConfigDict | None:
    return (config.get(f"{split}_dataloader") or {}).get("dataset")


def _sources(dataset: ConfigDict) -> Iterator[tuple[Sequence[str] | None, ConfigDict]]:
    """Tasks of a source, None for all, and its dataset."""
    if isinstance(dataset.get("sources"), Mapping):
        for source in dataset["sources"].values():
            for _, inner in _sources(source["dataset"]):
                yield tuple(source["tasks"]), inner
    elif dataset.get("pipeline") is None and (inner := dataset.get("dataset") or dataset.get("datasets")):
        # Wrappers of MMEngine, such as ConcatDataset and RepeatDataset.
        yield from _sources(inner if isinstance(inner, Mapping) else inner[0])
    else:
        yield None, dataset


def _scope(dataset: Mapping[str, Any]) -> str:
    library = str(dataset.get("type")).split(".")[0]
    return dataset.get("_scope_") or (library if library in LIBRARIES else "mtadapt")


def _build(tasks: Sequence[str], dataset: ConfigDict) -> TestPipeline:
    kept, to_float = [], False
    for transform in dataset["pipeline"]:
        kind = str(transform["type"]).split(".")[-1].strip("'<>")
        if kind.startswith("LoadImage"):
            to_float = bool(transform.get("to_float32"))
        elif not kind.startswith("Load"):
            kept.append(transform)
    try:
        with DefaultScope.overwrite_default_scope(_scope(dataset)):
            return TestPipeline(tuple(tasks), Compose(kept), to_float)
    except (KeyError, TypeError) as error:
        raise MTAdaptError(f"test pipeline of {dataset.get('type')}: {first_line(error)}") from error
