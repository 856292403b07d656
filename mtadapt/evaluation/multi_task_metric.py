"""One metric that gives every task's stock metric the samples and the meta of its own task."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import broadcast_object_list, collect_results, is_main_process
from mmengine.evaluator import BaseMetric
from mmengine.evaluator.metric import _to_cpu
from mmengine.logging import print_log
from mmengine.structures import BaseDataElement

from mtadapt.errors import MTAdaptError
from mtadapt.evaluation._coco import check_image_ids, is_coco, prepare_results
from mtadapt.registry import METRICS

Record = tuple[str, int, str, tuple]
"""Task, position of the metric in the task's list, image, and what the metric recorded for that image."""


@METRICS.register_module()
class MultiTaskMetric(BaseMetric):
    """Evaluate several tasks, each with the metric of its own library.

    A sample reaches the metrics of a task only if its ``labelled_tasks`` contain the task, and as the native sample
    of the task (``sample.det`` as a dict, the form in which MMEngine's ``Evaluator`` feeds a stock metric).

    Every image counts once a task, however often the sampler repeated it to fill the last batch: what was recorded
    is tagged with the image's path, gathered from all processes, freed of repetitions and sorted by path before it is
    computed on the first process. So the numbers do not depend on the number of processes, which the stock
    truncation to the length of the dataset cannot promise when tasks are labelled on different images.

    For the numbers of the official BDD100K tool use ``DrivableMetric``, ``IoUMetric``, and ``CocoMetric`` with
    ``proposal_nums=(1, 10, 100)``: with its default, AP50, AP75 and the AP by size count up to 1000 detections of a
    class in an image, where the official tool counts 100. ``IoUMetric`` agrees with the official ``-t sem_seg`` as long
    as every predicted class occurs in some ground truth; one that does not is an IoU of 0 in the mean of ``IoUMetric``
    and left out of the official mean.

    Known limits: a metric that collects its results itself (panoptic quality, video metrics) is refused, and images
    without labels are not written by ``format_only``.

    Args:
        tasks: Task name -> config of a metric, or a list of them. The type names the library, as in
            ``mmdet.CocoMetric``; without one it is a metric of this package. A built metric is accepted too.
        collect_device: ``'cpu'`` gathers through files in a folder that all processes see, ``'gpu'`` through the
            process group.
        collect_dir: The folder for ``'cpu'``. Default: ``.dist_test`` in the working directory.

    Returns:
        dict: ``evaluate`` returns ``task/name`` -> number, such as ``det/bbox_mAP``, ``sem_seg/mIoU``,
        ``drivable/official_mIoU`` and ``cls/top1``. A metric's default prefix (``coco``, ``accuracy``) is dropped; a
        ``prefix`` in its config is kept, as ``task/prefix/name``. AP is a fraction, the other numbers are in percent.

    Raises:
        MTAdaptError: If a metric cannot be built, a task is missing from the dataset's meta or from a labelled
            sample, or two metrics of one task give numbers of the same name.

    Example:
        >>> metric = MultiTaskMetric(dict(det=dict(type='mmdet.CocoMetric', metric='bbox'),
        ...                               drivable=dict(type='DrivableMetric')))
        >>> metric.dataset_meta = dict(tasks=dict(
        ...     det=dict(classes=('car',)), drivable=dict(classes=('direct', 'alternative', 'background'))))
    """

    # Only keeps BaseMetric from warning that there is no prefix: the names are made in `compute_metrics`.
    default_prefix = "multi_task"

    def __init__(
        self,
        tasks: Mapping[str, Any],
        collect_device: str = "cpu",
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, collect_dir=collect_dir)
        if not isinstance(tasks, Mapping) or not tasks:
            raise MTAdaptError(f"tasks={tasks!r} of MultiTaskMetric: give a dict of task name -> metric config")
        self.metrics: dict[str, list[BaseMetric]] = {}
        self._prefixes: dict[str, list[str]] = {}
        for task, configs in tasks.items():
            configs = list(configs) if isinstance(configs, (list, tuple)) else [configs]
            self.metrics[task] = [_build(task, config) for config in configs]
            self._prefixes[task] = [_own_prefix(config) for config in configs]
        # Metrics that build their ground truth from the samples, and have to forget it after every evaluation.
        self._sample_gt = {
            id(metric)
            for task_metrics in self.metrics.values()
            for metric in task_metrics
            if is_coco(metric) and getattr(metric, "_coco_api", None) is None
        }

    @property
    def dataset_meta(self) -> dict | None:
        """Meta of the dataset, ``dict(tasks=dict(det=dict(classes=...), ...))``; setting it sets every task's own."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        tasks = dataset_meta.get("tasks") if isinstance(dataset_meta, Mapping) else None
        if not isinstance(tasks, Mapping):
            raise MTAdaptError(
                "dataset_meta of MultiTaskMetric has no 'tasks': the dataset's metainfo must be "
                "dict(tasks=dict(<task>=dict(classes=...)))"
            )
        for task, metrics in self.metrics.items():
            if task not in tasks:
                raise MTAdaptError(
                    f"task {task!r} of MultiTaskMetric is unknown to the dataset: known are {list(tasks)}"
                )
            for metric in metrics:
                metric.dataset_meta = tasks[task]
        self._dataset_meta = dataset_meta

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Feed one batch to the metrics of the tasks that each sample has labels for.

        Args:
            data_batch: The batch as the data loader gave it; handed on as it is.
            data_samples: ``MultiTaskDataSample`` s, or their dicts as MMEngine's ``Evaluator`` makes them.
        """
        if self._dataset_meta is None:
            raise MTAdaptError(
                "dataset_meta of MultiTaskMetric is not set: set evaluator.dataset_meta to the dataset's"
            )
        for sample in data_samples:
            if isinstance(sample, BaseDataElement):
                sample = sample.to_dict()
            if "labelled_tasks" not in sample:
                raise MTAdaptError(f"sample {_name(sample)!r} has no metainfo 'labelled_tasks': its loader must set it")
            labelled = sample["labelled_tasks"]
            for task, metrics in self.metrics.items():
                if task in labelled:
                    native = self._native(task, sample)
                    for index, metric in enumerate(metrics):
                        metric.process(data_batch, [native])
                        self.results.append((task, index, _name(native), tuple(_to_cpu(metric.results))))
                        metric.results.clear()

    def _native(self, task: str, sample: dict) -> dict:
        """Return the native sample of ``task`` as a dict, completed by the sample's own metainfo."""
        native = sample.get(task)
        if native is None:
            raise MTAdaptError(
                f"sample {_name(sample)!r} is labelled for task {task!r}, but the model returned nothing for it: "
                f"give the model this task or remove it from the metrics"
            )
        native = native.to_dict() if isinstance(native, BaseDataElement) else native
        shared = {k: v for k, v in sample.items() if not isinstance(v, (dict, BaseDataElement))}
        native = {**shared, **native}
        native.setdefault("img_id", _name(native))
        return native

    def evaluate(self, size: int) -> dict:
        """Gather the records of all processes, compute on the first, and return the same numbers everywhere.

        Args:
            size: Length of the dataset. Not used: repeated images are recognised by their path.

        Returns:
            dict: ``task/name`` -> number. A task without a labelled image is warned about and gives none.
        """
        try:
            folder = {"tmpdir": self.collect_dir} if self.collect_device == "cpu" else {}
            records = collect_results(self.results, sys.maxsize, self.collect_device, **folder)
        finally:
            self.results.clear()
        numbers: dict = {}
        failure: Exception | None = None
        if is_main_process():
            try:
                numbers = self.compute_metrics(records)
            except Exception as error:  # raised below, after the other processes know
                failure = error
        shared: list[Any] = [numbers, "" if failure is None else f"{type(failure).__name__}: {failure}"]
        broadcast_object_list(shared)
        if failure is not None:
            raise failure
        if shared[1]:
            raise RuntimeError(f"evaluation failed on the first process: {shared[1]}")
        return shared[0]

    def compute_metrics(self, results: list[Record]) -> dict:
        """Compute every metric from the records of all processes.

        Args:
            results: Records in any order, repetitions included.

        Returns:
            dict: ``task/name`` -> number.
        """
        images: dict[tuple[str, int], dict[str, tuple]] = {}
        for task, index, image, recorded in results:
            images.setdefault((task, index), {}).setdefault(image, recorded)
        numbers: dict[str, Any] = {}
        for task, metrics in self.metrics.items():
            if (task, 0) not in images:
                print_log(
                    f"task {task!r} has no labelled sample in this evaluation: no numbers for it",
                    logger="current",
                    level=logging.WARNING,
                )
                continue
            for index, metric in enumerate(metrics):
                found = images.pop((task, index))
                if is_coco(metric) and id(metric) not in self._sample_gt:
                    check_image_ids(found)
                ordered = [result for image in sorted(found) for result in found[image]]
                for name, value in self._compute_one(metric, ordered).items():
                    key = "/".join(part for part in (task, self._prefixes[task][index], name) if part)
                    if key in numbers:
                        raise MTAdaptError(
                            f"two metrics of task {task!r} give a number named {key!r}: "
                            f"give one of them a prefix=... in its config"
                        )
                    numbers[key] = value
        return numbers

    def _compute_one(self, metric: BaseMetric, results: list) -> dict:
        """Compute one metric, and leave nothing of this evaluation in it."""
        if not is_coco(metric):
            return metric.compute_metrics(results)
        from_samples = id(metric) in self._sample_gt
        try:
            return metric.compute_metrics(prepare_results(results, renumber=from_samples))
        finally:
            if from_samples:
                # The stock metric would keep this ground truth and judge every later evaluation by it.
                vars(metric).update(_coco_api=None, cat_ids=None, img_ids=None)


def _build(task: str, config: Any) -> BaseMetric:
    """Build a task's metric under the scope of the library that its type names."""
    if isinstance(config, BaseMetric):
        metric = config
    elif not isinstance(config, Mapping) or "type" not in config:
        raise MTAdaptError(f"tasks[{task!r}]={config!r}: give the config of a metric with a 'type', or a list of them")
    else:
        config = dict(config)
        library, _, name = config["type"].rpartition(".") if isinstance(config["type"], str) else ("", "", "")
        if library and "_scope_" not in config:
            config.update(_scope_=library, type=name)
        try:
            metric = METRICS.build(config)
        except KeyError as error:
            raise MTAdaptError(f"tasks[{task!r}]: {config['type']!r} cannot be built: {error.args[0]}") from error
    if type(metric).evaluate is not BaseMetric.evaluate:
        raise MTAdaptError(
            f"tasks[{task!r}]: {type(metric).__name__} collects its results in a way of its own, which "
            f"MultiTaskMetric cannot route: evaluate it with mmengine's Evaluator"
        )
    return metric


def _own_prefix(config: Any) -> str:
    """Return the prefix that the user chose for a metric, or '' for the metric's default."""
    if isinstance(config, BaseMetric):
        return "" if config.prefix in (None, config.default_prefix) else config.prefix
    return config.get("prefix") or ""


def _name(sample: Mapping[str, Any]) -> str:
    """Return what tells a sample's image from all others: the path, or else the dataset's number for it."""
    for key in ("img_path", "img_id"):
        if sample.get(key) is not None:
            return str(sample[key])
    raise MTAdaptError("a sample has neither 'img_path' nor 'img_id' in its metainfo: its loader must set img_path")
