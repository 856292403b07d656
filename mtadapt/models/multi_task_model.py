"""One backbone, one neck, several stock models as tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from mmengine.dist import get_world_size
from mmengine.model import BaseModel, ModuleDict
from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.adapters import LVAdapter
from mtadapt.models.image_groups import ImageGroup, Losses, labelled_by_source, mean_losses, split_samples
from mtadapt.models.losses.balancing import ROUTING, absent_tasks, common_loss, task_totals
from mtadapt.models.moe import Route
from mtadapt.models.routed_rows import (
    build_routing,
    is_sharded,
    named_tasks,
    own_tasks,
    plan_rows,
    predicted_tasks,
    router_parameters,
    trained_tasks,
)
from mtadapt.models.tasks import (
    build_task,
    check_prompts,
    check_task_name,
    frozen_batch_norm,
    native_samples,
    unlabelled_sample,
)
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample

Features = dict[str, tuple[Tensor, ...]]
#: Of each level, task name to the score map of its classes.
ScoreMaps = list[dict[str, Tensor]]


@MODELS.register_module()
class MultiTaskModel(BaseModel):
    """A shared backbone and neck whose features any number of stock models use.

    A task is the config of a stock mmdet detector, mmseg segmentor or mmpretrain classifier with
    ``backbone=dict(type='mtadapt.SharedFeatures')``: it keeps its own neck, heads, losses, post-processing and test
    settings. In training each task sees only the samples that are labelled for it.

    The features of a backbone with experts (:class:`~mtadapt.models.moe.MoEBackbone`) depend on the task, whose router
    chooses the experts. An image then passes the backbone once for every route of the tasks that are wanted for it (in
    training those that it is labelled for), in one batch with the others; tasks with equal routes share the pass. The
    routing's losses and statistics are named ``routing.name``: they belong to no task, and neither ``loss_weights`` nor
    the ``loss_balancer`` scales them.

    Args:
        backbone: the shared backbone, e.g. ``dict(type='mmdet.ResNet', depth=50, ...)``.
        neck: the shared neck, e.g. ``dict(type='mmdet.FPN', ...)``, or a list of necks that follow each other; None
            when each task brings its own.
        adapter: what adjusts the features behind the neck, e.g. ``dict(type='MultiScaleAdapter', ...)`` or
            ``dict(type='LVAdapter', ...)``, whose alignment losses are added to those of the tasks.
        tasks: task name to the stock model's config.
        data_preprocessor: a :class:`~mtadapt.models.MultiTaskDataPreprocessor` config.
        loss_weights: task name to the factor of its losses; 1 for the tasks that are not named.
        loss_balancer: what multiplies the losses of each task with weights that change in training:
            ``dict(type='UncertaintyWeighting')``, ``dict(type='DWA')`` or ``dict(type='GradNorm')``; None for none.
        routing: task name to the router of the backbone that it uses, or to the shares of several, e.g.
            ``dict(drivable='sem_seg', det=dict(det=0.5, sem_seg=0.5))``; the router of its own name for tasks that are
            not named. Routers that no task uses do not train.
        init_cfg: as in :class:`mmengine.model.BaseModule`.

    Raises:
        MTAdaptError: for a task that cannot be built, weights of unknown tasks, prompts that do not fit the tasks, or
            routes that do not fit the backbone.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict | list[dict] | None = None,
        adapter: dict | None = None,
        tasks: Mapping[str, dict] | None = None,
        data_preprocessor: dict | None = None,
        loss_weights: Mapping[str, float] | None = None,
        loss_balancer: dict | None = None,
        routing: Mapping[str, Route] | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor or dict(type="mtadapt.MultiTaskDataPreprocessor"), init_cfg)
        if not tasks:
            raise MTAdaptError("MultiTaskModel: tasks is empty; give at least one, e.g. tasks=dict(det=...)")
        for name in tasks:
            check_task_name(name)
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck) if neck is not None else None
        self.adapter = MODELS.build(adapter) if adapter is not None else None
        self.routing = build_routing(self.backbone, [*tasks], routing)
        self.tasks = ModuleDict({name: build_task(name, cfg) for name, cfg in tasks.items()})
        if isinstance(self.adapter, LVAdapter):
            check_prompts(self.adapter.classes, self.tasks)
        self.loss_weights = dict(loss_weights or {})
        unknown = set(self.loss_weights) - set(self.tasks)
        if unknown:
            raise MTAdaptError(
                f"MultiTaskModel: loss_weights of unknown tasks {sorted(unknown)}; tasks: {[*self.tasks]}"
            )
        # Its statistics have a row for each task, and a config that MMEngine has dumped has the tasks in this order.
        self.loss_balancer = MODELS.build(dict(loss_balancer, tasks=sorted(self.tasks))) if loss_balancer else None

    def forward(
        self,
        inputs: Tensor | list[Tensor],
        data_samples: Sequence[MultiTaskDataSample] | None = None,
        mode: str = "tensor",
        tasks: str | Sequence[str] | None = None,
    ) -> Losses | list[MultiTaskDataSample] | tuple[Tensor, ...]:
        """Run the model as MMEngine's runner does.

        Args:
            inputs: images ``(N, 3, H, W)``, normalised and padded, or a list of them, whose samples follow each other.
            data_samples: one sample an image, as :class:`~mtadapt.models.MultiTaskDataPreprocessor` leaves it.
            mode: ``loss``, ``predict`` or ``tensor`` (the shared features).
            tasks: of mode ``tensor``, see :meth:`extract_features`.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples or [])
        if mode == "predict":
            return self.predict(inputs, data_samples)
        if mode == "tensor":
            return self.extract_features(_one_tensor(inputs), tasks)["neck"]
        raise MTAdaptError(f"MultiTaskModel: unknown mode {mode!r}; known: loss, predict, tensor")

    def extract_features(self, inputs: Tensor, tasks: str | Sequence[str] | None = None) -> Features:
        """Return the shared features after the ``backbone``, and after the ``neck`` and the adapter.

        Args:
            inputs: images ``(N, 3, H, W)``.
            tasks: the task that the features are for, or one for each image, where they depend on it.

        Raises:
            MTAdaptError: where the features depend on the task and none is given, or an unknown one.
        """
        if self.routing is None:
            return self._features_and_scores(inputs)[0]
        if isinstance(tasks, str) and tasks in self.tasks:
            # One route for all images, however many there are: an exported graph leaves that open.
            route = self.routing[tasks]
            return self._features_and_scores(inputs, route if isinstance(route, str) else dict(route))[0]
        wanted = named_tasks(tasks, len(inputs), [*self.tasks])
        return self._features_and_scores(inputs, plan_rows(wanted, self.routing).routes)[0]

    def task_parameters(self, name: str) -> list[nn.Parameter]:
        """What a task trains besides the shared parts: its head, and the routers of its route."""
        return [*self.tasks[name].parameters(), *self._routers(name)]

    def _routers(self, name: str) -> list[nn.Parameter]:
        return [] if self.routing is None else router_parameters(self.backbone, self.routing[name])

    def _group(
        self, images: Tensor, samples: list[MultiTaskDataSample], predicted: Sequence[str] | None = None
    ) -> ImageGroup:
        """The features of a group of images, for the tasks that are predicted, or in training those with labels."""
        if self.routing is None:
            return ImageGroup(images, samples, *self._features_and_scores(images))
        wanted = trained_tasks(samples, self.tasks) if predicted is None else own_tasks(samples, predicted)
        rows = plan_rows(wanted, self.routing)
        return ImageGroup(images, samples, *self._features_and_scores(rows.expand(images), rows.routes), rows)

    def _features_and_scores(
        self, inputs: Tensor, routes: Route | Sequence[Route] | None = None
    ) -> tuple[Features, ScoreMaps]:
        backbone = tuple(self.backbone(inputs) if routes is None else self.backbone(inputs, routes))
        shared = backbone if self.neck is None else tuple(self.neck(backbone))
        scores: ScoreMaps = []
        if isinstance(self.adapter, LVAdapter):
            shared, scores = self.adapter.forward_with_scores(shared)
        elif self.adapter is not None:
            shared = tuple(self.adapter(shared))
        return dict(backbone=backbone, neck=shared), scores

    def loss(self, inputs: Tensor | list[Tensor], samples: Sequence[MultiTaskDataSample]) -> Losses:
        """Losses of all tasks, named ``task.name``, each multiplied by its task's weight.

        A task without labels in the batch gives ``task.loss_absent``, a zero that touches its parameters, so that
        every parameter receives a gradient on every process.

        Args:
            inputs: images ``(N, 3, H, W)``, normalised and padded, or a list of them, whose samples follow each other.
            samples: the samples after the data preprocessor.

        Raises:
            MTAdaptError: when a sample is labelled for a task that the model does not have.
        """
        self._check_labelled_tasks(samples)
        with self._collecting_routes():
            groups = [self._group(images, own) for images, own in split_samples(inputs, samples)]
        losses: Losses = {}
        for name, task in self.tasks.items():
            # In the order of the groups, because heads that average over processes wait for each other.
            parts: list[tuple[int, Losses]] = []
            unlabelled: list[Tensor] = []
            for group in groups:
                if rows := group.rows(name):
                    parts.append((len(rows), self._labelled_loss(task, group, rows)))
                elif (zero := self._unlabelled_loss(task, group)) is not None:
                    unlabelled.append(zero)
            task_losses = mean_losses(parts) if parts else dict(loss_absent=self._zero(task, groups[0]))
            if unlabelled:
                task_losses["loss_unlabelled" if parts else "loss_absent"] = sum(
                    unlabelled, start=self._zero(task, groups[0])
                )
            weight = self.loss_weights.get(name, 1.0)
            for key, value in task_losses.items():
                losses[f"{name}.{key}"] = _scale(value, weight) if "loss" in key else value
            losses[f"{name}.samples"] = torch.tensor(float(sum(count for count, _ in parts)))
        if self.loss_balancer is not None:
            losses = self.loss_balancer(losses, self._common_features(groups))
        return {**losses, **self._routing_losses()}

    def _collecting_routes(self) -> AbstractContextManager[None]:
        return self.backbone.collecting() if hasattr(self.backbone, "collecting") else nullcontext()

    def _routing_losses(self) -> Losses:
        """Losses and statistics of a backbone with experts."""
        statistics = getattr(self.backbone, "routing_statistics", None)
        return {} if statistics is None else {f"{ROUTING}.{name}": value for name, value in statistics().items()}

    def _common_features(self, groups: Sequence[ImageGroup]) -> list[Tensor]:
        """The features that all tasks read, or that those they read are made of."""
        source = "neck" if all(task.backbone.source == "neck" for task in self.tasks.values()) else "backbone"
        return [level for group in groups for level in group.features[source]]

    def parse_losses(self, losses: Losses) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum the losses as MMEngine does, and keep apart what gradient surgery needs.

        Returns:
            The total and what is logged. The total has four attributes more: ``task_losses``, task name to the sum of
            its losses; ``absent_tasks``, the names of those without labels in the batch; ``common_loss``, the sum of
            the losses of no task, or None; and ``task_parameters``, which is :meth:`task_parameters`.
        """
        total, log_vars = super().parse_losses(losses)
        total.task_losses, total.absent_tasks = task_totals(losses), absent_tasks(losses)
        total.common_loss, total.task_parameters = common_loss(losses), self.task_parameters
        return total, log_vars

    def _labelled_loss(self, task: BaseModel, group: ImageGroup, rows: list[int]) -> Losses:
        natives = native_samples(task, group.samples_of(rows))
        return {**self._task_loss(task, group, rows, natives), **self._align_loss(task.task_name, group, rows)}

    def predict(
        self, inputs: Tensor | list[Tensor], samples: Sequence[MultiTaskDataSample] | None = None
    ) -> list[MultiTaskDataSample]:
        """Predictions of all tasks, in the size of the original images.

        Args:
            inputs: images ``(N, 3, H, W)``, normalised and padded, or a list of them, whose samples follow each other.
            samples: the samples after the data preprocessor; made from the input's size when None.

        Returns:
            The samples, with one native sample a task that holds the task's own prediction fields. The logits of dense
            tasks are dropped, because they are as many floats as image pixels times classes. Images that come from a
            source of a :class:`~mtadapt.datasets.HeterogeneousDataset` get the tasks that the source labels, which
            are all that can be evaluated.
        """
        if samples is None:
            inputs = _one_tensor(inputs)
            size = tuple(inputs.shape[-2:])
            meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
            samples = [MultiTaskDataSample(metainfo=meta) for _ in range(len(inputs))]
        samples = list(samples)
        for images, own in split_samples(inputs, samples):
            self._predict_group(images, own)
        return samples

    def _predict_group(self, images: Tensor, samples: list[MultiTaskDataSample]) -> None:
        names = predicted_tasks(samples, self.tasks)
        if not names:
            return
        group = self._group(images, samples, names)
        for name in names:
            task, rows = self.tasks[name], group.served(name)
            shared, chosen = group.select(group.features[task.backbone.source], rows), group.samples_of(rows)
            for sample, native in zip(chosen, task.predict(shared, native_samples(task, chosen)), strict=True):
                if "seg_logits" in native:
                    del native.seg_logits
                sample.set_task(name, native)

    def _check_labelled_tasks(self, samples: Sequence[MultiTaskDataSample]) -> None:
        for sample in samples:
            for name in sample.labelled_tasks:
                if name not in self.tasks:
                    raise MTAdaptError(
                        f"{sample.get('img_path')}: labelled for task {name!r}, which the model does not have "
                        f"(tasks: {', '.join(self.tasks)}); add the task or leave it out of the dataset's tasks"
                    )

    def _task_loss(
        self,
        task: BaseModel,
        group: ImageGroup,
        rows: list[int],
        natives: list[BaseDataElement],
        unlabelled: bool = False,
    ) -> Losses:
        shared = group.select(group.features[task.backbone.source], rows)
        alone = len(rows) == 1 and (unlabelled or len(group.images) > 1)
        # Batch norm learns nothing from a row without labels, and cannot use the one value a channel that pooling
        # leaves of a single row. A batch of one image is left to the stock model.
        with frozen_batch_norm(task, when=alone):
            return task.loss(shared, natives)

    def _align_loss(self, name: str, group: ImageGroup, rows: list[int]) -> Losses:
        if not isinstance(self.adapter, LVAdapter) or name not in self.adapter.classes:
            return {}
        index = torch.tensor(rows, device=group.images.device)
        chosen = [{name: level[name].index_select(0, index)} for level in group.scores]
        return self.adapter.align_loss(name, chosen, group.samples_of(rows))

    def _zero(self, task: BaseModel, group: ImageGroup) -> Tensor:
        """Zero, through everything that the task trains, so that it has a gradient on every process."""
        routed = self.routing is not None and not is_sharded(self.backbone)
        return _touch(task, group, self._routers(task.task_name) if routed else ())

    def _unlabelled_loss(self, task: BaseModel, group: ImageGroup) -> Tensor | None:
        """Zero, from the task's head on one image without labels, where other processes may have labelled ones.

        Heads that average over processes would wait for this one, so it takes part in their collective calls. None with
        one process, and where the group's sources, which all processes have in common, cannot label the task.
        """
        known = labelled_by_source(group.samples)
        if get_world_size() == 1 or (known is not None and task.task_name not in known):
            return None
        native = unlabelled_sample(task, group.samples_of([0])[0], group.images.device)
        if native is None:
            return None
        losses = self._task_loss(task, group, [0], [native], unlabelled=True)
        return torch.stack([_total(value) * 0 for key, value in losses.items() if "loss" in key]).sum()


def _touch(task: BaseModel, group: ImageGroup, routers: Sequence[Tensor] = ()) -> Tensor:
    """Zero, through every parameter of the task and its routers and every level of the features that it reads."""
    parameters = [each for each in (*task.parameters(), *routers) if each.requires_grad]
    touched = [*group.features[task.backbone.source], *parameters]
    # One element of each, because a sum of half-precision features can overflow, and infinity times 0 is NaN.
    return torch.stack([tensor.flatten()[0].float() * 0 for tensor in touched]).sum()


def _one_tensor(inputs: Tensor | list[Tensor]) -> Tensor:
    if isinstance(inputs, Tensor):
        return inputs
    raise MTAdaptError("MultiTaskModel: images of several sizes need their data_samples; give one tensor without them")


def _scale(value: Tensor | list[Tensor], weight: float) -> Tensor | list[Tensor]:
    if weight == 1.0:
        return value
    return [item * weight for item in value] if isinstance(value, list) else value * weight


def _total(value: Tensor | list[Tensor]) -> Tensor:
    return sum(item.sum() for item in value) if isinstance(value, list) else value.sum()  # type: ignore[return-value]
