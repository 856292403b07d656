"""Several datasets, each with its own labels and pipeline, as one dataset."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.config import ConfigDict
from torch.utils.data import Dataset

from mtadapt.datasets.label_checks import check_categories, check_ids
from mtadapt.datasets.packed_samples import add_metainfo, kinds_of, to_multi_task
from mtadapt.datasets.sample_randomness import random_states_kept, seed_sample
from mtadapt.datasets.transforms.formatting import DEFAULT_KINDS
from mtadapt.errors import MTAdaptError, first_line
from mtadapt.registry import DATASETS, LIBRARIES

_EMPTY = "source {!r} is empty; check its paths, suffixes, annotation file and filter_cfg"


class Draw(NamedTuple):
    """What :class:`~mtadapt.datasets.HeterogeneousBatchSampler` asks the dataset for.

    Attributes:
        source: position of the source.
        sample: position of the sample in the source.
        seed: of the pipeline's randomness, 64 bits.
        accumulation: this batch's number among those of one update, and how many these are.
    """

    source: int
    sample: int
    seed: int
    accumulation: tuple[int, int] = (0, 1)


class _Source(NamedTuple):
    name: str
    dataset: Any
    kinds: dict[str, str | None]


@DATASETS.register_module()
class HeterogeneousDataset(Dataset):
    """Named sources, each an ordinary dataset of mmdet, mmseg, mmpretrain or this package with its own pipeline.

    A source's dataset is a stock config, built under its own library's scope: bare names in its pipeline are that
    library's. What the pipeline packs (``PackDetInputs``, ``PackSegInputs``, ``PackInputs``, ``PackMultiTaskInputs``)
    becomes a :class:`~mtadapt.structures.MultiTaskDataSample` whose metainfo also has ``source`` (its name) and, in
    training, ``source_tasks`` (what the source can label) and ``accumulation``.

    It is a map-style dataset: index it with a :class:`Draw`, or with an integer, which counts through the sources in
    their order, e.g. for validation with ``DefaultSampler``.

    Args:
        sources: name to ``dict(dataset=<config>, tasks=[...])``. ``tasks`` are the names of the model's tasks; where
            a source has several, or a task's name does not tell, ``tasks=dict(det='boxes', stuff='map')`` says what
            the labels are (``boxes``, ``map`` or ``label``).

    Raises:
        MTAdaptError: naming the source, when it cannot be built, is empty, lacks the labels of a task (seen on its
            first sample), or has other classes for a task than another source.
    """

    def __init__(self, sources: Mapping[str, Mapping[str, Any]]) -> None:
        if not isinstance(sources, Mapping) or not sources:
            raise MTAdaptError(
                f"HeterogeneousDataset: sources={sources!r}; write dict(name=dict(dataset=..., tasks=[...]))"
            )
        self.sources = [_build(name, config) for name, config in sources.items()]
        #: Source name to number of samples.
        self.sizes = {source.name: len(source.dataset) for source in self.sources}
        for name, size in self.sizes.items():
            if not size:
                raise MTAdaptError(_EMPTY.format(name))
        self._ends = np.cumsum(list(self.sizes.values()))
        self._tasks: dict[str, dict] = {}
        for position, source in enumerate(self.sources):
            self._check_labels(position, source)
            self._add_tasks(source)

    @property
    def metainfo(self) -> dict:
        """``tasks``: task to the metainfo of the source that labels it; ``sources``: source to its own metainfo."""
        return dict(tasks=self._tasks, sources={source.name: _metainfo(source) for source in self.sources})

    @property
    def num_skipped(self) -> int:
        """How many times a sample was replaced because it could not be read."""
        return sum(getattr(source.dataset, "num_skipped", 0) for source in self.sources)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, item: int | Draw) -> dict:
        """Return ``dict(inputs=uint8 (3, H, W), data_samples=MultiTaskDataSample)``."""
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[int | Draw]) -> list[dict]:
        """Return the samples of a batch, which is what PyTorch's loaders ask for."""
        if not any(isinstance(item, Draw) for item in items):
            return [self._load(item) for item in items]
        with random_states_kept():
            return [self._load(item) for item in items]

    def _load(self, item: int | Draw) -> dict:
        if isinstance(item, Draw):
            source = self.sources[item.source]
            seed_sample(item.seed)
            packed = source.dataset[item.sample]
        else:
            position, index = self._locate(item)
            source = self.sources[position]
            packed = source.dataset[index]
        sample = to_multi_task(packed["data_samples"], source.kinds)
        extra: dict[str, Any] = dict(source=source.name)
        if isinstance(item, Draw):
            # All processes draw from the same sources in the same step, so these tasks are those of all of them.
            extra.update(accumulation=item.accumulation, source_tasks=tuple(source.kinds))
        add_metainfo(sample, extra.items())
        return dict(inputs=packed["inputs"], data_samples=sample)

    def get_data_info(self, index: int) -> dict:
        """Return the entry of sample ``index`` of its source's dataset."""
        position, inner = self._locate(index)
        return self.sources[position].dataset.get_data_info(inner)

    def aspect_ratio_groups(self, name: str) -> Callable[[np.ndarray], np.ndarray] | None:
        """What tells wide (0) from high (1) images of a source, or None where its entries have no sizes.

        Returns:
            A function from sample indices ``(n,)`` to groups ``(n,)``.
        """
        dataset = next(source.dataset for source in self.sources if source.name == name)
        get_info = getattr(dataset, "get_data_info", None)
        if get_info is None or not {"width", "height"} <= set(get_info(0)):
            return None

        def groups(indices: np.ndarray) -> np.ndarray:
            infos = (get_info(int(index)) for index in indices)
            return np.fromiter((info["width"] < info["height"] for info in infos), np.int8, len(indices))

        return groups

    def _locate(self, index: int) -> tuple[int, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        index %= len(self)
        position = int(np.searchsorted(self._ends, index, side="right"))
        return position, index - int(self._ends[position - 1] if position else 0)

    def _check_labels(self, position: int, source: _Source) -> None:
        """Load the first sample and look for the labels; sources that label images in part tell it themselves."""
        check_categories(source.name, source.dataset)
        try:
            sample = self[Draw(position, 0, 0)]["data_samples"]
        except MTAdaptError as error:
            raise MTAdaptError(f"source {source.name!r}: {error}") from error
        except (KeyError, TypeError, OSError, AssertionError, ValueError, AttributeError, IndexError) as error:
            raise MTAdaptError(
                f"source {source.name!r}: its first sample cannot be loaded: {first_line(error)}"
            ) from error
        meta = _metainfo(source)
        known = meta.get("tasks", sample.labelled_tasks)
        for task in source.kinds:
            if task not in known:
                kind = source.kinds[task] or "labels"
                raise MTAdaptError(
                    f"source {source.name!r} has no {kind} for task {task!r} ({sample.get('img_path')}); load them in "
                    f"its pipeline, or leave the task out of its tasks"
                )
            if task in sample.tasks:
                classes = (meta["tasks"][task] if "tasks" in meta else meta).get("classes")
                check_ids(source.name, task, sample, classes)
        extra = set(sample.labelled_tasks) - set(source.kinds)
        if extra:
            raise MTAdaptError(
                f"source {source.name!r} labels {', '.join(sorted(extra))}, which its tasks={[*source.kinds]} leave "
                f"out; name the same tasks there and in its dataset"
            )

    def _add_tasks(self, source: _Source) -> None:
        meta = _metainfo(source)
        for task in source.kinds:
            own = meta["tasks"][task] if "tasks" in meta else meta
            classes = own.get("classes")
            if task not in self._tasks:
                self._tasks[task] = own
            elif (there := self._tasks[task].get("classes")) != classes:
                first = next(other.name for other in self.sources if task in other.kinds)
                raise MTAdaptError(
                    f"sources {first!r} and {source.name!r} claim task {task!r} with different classes "
                    f"({_differences(there, classes)}); give them one list through metainfo=dict(classes=...), or name "
                    f"two tasks"
                )
            elif (there := self._tasks[task].get("reduce_zero_label")) != own.get("reduce_zero_label"):
                first = next(other.name for other in self.sources if task in other.kinds)
                raise MTAdaptError(
                    f"sources {first!r} and {source.name!r} claim task {task!r} with reduce_zero_label={there} and "
                    f"{own.get('reduce_zero_label')}; their maps would mean different classes"
                )


def _build(name: str, config: Mapping[str, Any]) -> _Source:
    if not isinstance(name, str) or not name.isidentifier():
        raise MTAdaptError(f"source name {name!r}; use letters, digits and underscores")
    if not isinstance(config, Mapping) or set(config) != {"dataset", "tasks"}:
        raise MTAdaptError(f"source {name!r}: write dict(dataset=<config of a dataset>, tasks=[...])")
    kinds = kinds_of(config["tasks"], name, DEFAULT_KINDS)
    dataset = ConfigDict(config["dataset"])
    library = str(dataset.get("type")).split(".")[0]
    if library in LIBRARIES:
        dataset.setdefault("_scope_", library)
    try:
        built = DATASETS.build(dataset)
        if hasattr(built, "full_init"):
            built.full_init()
    except MTAdaptError as error:
        raise MTAdaptError(f"source {name!r}: {error}") from error
    except (KeyError, TypeError, OSError, AssertionError, ValueError) as error:
        # What MMEngine's serialisation of no entries says.
        if "need at least one array to concatenate" in str(error):
            raise MTAdaptError(_EMPTY.format(name)) from error
        raise MTAdaptError(f"source {name!r}: its dataset cannot be built: {first_line(error)}") from error
    return _Source(name, built, kinds)


def _metainfo(source: _Source) -> dict:
    return dict(getattr(source.dataset, "metainfo", None) or {})


def _differences(first: Any, second: Any) -> str:
    if not first or not second:
        return f"{len(first or ())} and {len(second or ())} classes"
    if len(first) != len(second):
        return f"{len(first)} and {len(second)} classes"
    number = next(number for number, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1])
    return f"class {number} is {first[number]!r} and {second[number]!r}"
