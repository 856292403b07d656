"""The sample that carries one native sample a task through pipelines, models and metrics."""

from __future__ import annotations

from mmengine.structures import BaseDataElement


class MultiTaskDataSample(BaseDataElement):
    """One image's annotations and predictions for several tasks.

    Every task is a field that holds the sample type of the library that the task's model comes from, so stock heads,
    metrics and visualizers receive what they know: ``sample.det`` is an mmdet ``DetDataSample``, ``sample.sem_seg`` an
    mmseg ``SegDataSample``, ``sample.cls`` an mmpretrain ``DataSample``.

    A loader sets only the tasks that the image has labels for and records them in the metainfo ``labelled_tasks``.
    A model's ``predict`` fills every task; ``labelled_tasks`` still tells a metric which of them have ground truth.

    Example:
        >>> sample = MultiTaskDataSample(metainfo=dict(img_path='a.jpg', labelled_tasks=('det',)))
        >>> sample.set_task('det', DetDataSample())
        >>> sample.tasks
        ('det',)
    """

    #: Names of the tasks that have ground truth; set through the metainfo.
    labelled_tasks: tuple[str, ...] = ()

    def set_task(self, name: str, sample: BaseDataElement) -> None:
        """Set the native sample of task ``name``."""
        self.set_field(sample, name, dtype=BaseDataElement)

    def task(self, name: str) -> BaseDataElement:
        """Return the native sample of task ``name``.

        Raises:
            AttributeError: when the image has none; :attr:`tasks` lists those that it has.
        """
        return getattr(self, name)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that have a native sample, in alphabetical order."""
        return tuple(sorted(name for name, value in self.items() if isinstance(value, BaseDataElement)))
