"""What backbones with experts have in common."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.layers import MoELayer
from mtadapt.models.moe.routes import Record, Route, Routes
from mtadapt.models.moe.usage import entropy, mutual_information_loss, update_usage


class MoEBackbone(BaseModule):
    """A mixin for backbones whose layers have experts.

    The subclass calls :meth:`set_tasks` before it builds its layers; its ``forward(x, routes=None)`` begins with
    :meth:`begin` and ends with :meth:`finish`, and hands the :class:`Routes` to every block.
    """

    tasks: tuple[str, ...]

    def set_tasks(self, tasks: Sequence[str], mutual_information: Mapping[str, float] | None = None) -> None:
        """Check and keep the settings that do not depend on the architecture.

        Args:
            tasks: names of the tasks that have routers.
            mutual_information: ``weight`` of the loss (5e-4) and ``momentum`` of the running statistics (0.99).

        Raises:
            MTAdaptError: for no task, a name given twice, or an unknown or impossible setting.
        """
        name = type(self).__name__
        names = list(tasks) if isinstance(tasks, (list, tuple)) else []
        if not names or not all(isinstance(task, str) and task.isidentifier() for task in names):
            raise MTAdaptError(f"{name}: tasks={tasks!r}; write a list with the names of the tasks")
        if len(set(names)) < len(names) or any(hasattr(nn.ModuleDict, task) for task in names):
            raise MTAdaptError(f"{name}: tasks={tasks!r}; write each once, and no name that a dictionary has: 'keys'")
        if not isinstance(mutual_information, (Mapping, type(None))):
            raise MTAdaptError(f"{name}: mutual_information={mutual_information!r}; write dict(weight=...)")
        given = dict(mutual_information or {})
        self.mi_weight, self.momentum = given.pop("weight", 5e-4), given.pop("momentum", 0.99)
        if given:
            raise MTAdaptError(f"{name}: mutual_information has no {', '.join(given)}; known: weight, momentum")
        numbers = all(isinstance(each, (int, float)) for each in (self.mi_weight, self.momentum))
        if not numbers or not 0 <= self.mi_weight < math.inf or not 0 <= self.momentum < 1:
            raise MTAdaptError(
                f"{name}: mutual_information weight={self.mi_weight}, momentum={self.momentum}; write a weight from 0 "
                "and a momentum from 0 to below 1"
            )
        self.tasks = tuple(tasks)
        self._passes: list[Routes] = []
        self._collecting = False

    def moe_layers(self) -> dict[str, MoELayer]:
        """Name inside the backbone to the layer, in the order of the network."""
        return {name: module for name, module in self.named_modules() if isinstance(module, MoELayer)}

    @property
    def conditioned(self) -> bool:
        """Whether the features depend on the task, so that a caller has to give routes."""
        return len(self.tasks) > 1 and any(isinstance(module, MoELayer) for module in self.modules())

    def task_parameters(self, task: str) -> list[nn.Parameter]:
        """What only one task uses: its routers."""
        return [each for layer in self.moe_layers().values() for each in layer.routers[task].parameters()]

    def begin(self, x: Tensor, routes: Route | Sequence[Route] | None) -> Routes:
        """Read the routes of a batch ``(N, 3, H, W)``; a dense twin ignores them."""
        if not self.conditioned:
            routes = self.tasks[0]
        return Routes.build(routes, self.tasks, x.shape[0], x.device)

    def finish(self, routes: Routes) -> None:
        """Keep what was routed, inside :meth:`collecting`.

        Outside of it, in a stock model, the statistics of a backbone with one task move on at once.
        """
        routes.close()
        if routes.records and self._collecting:
            self._passes.append(routes)
        elif routes.records and not self.conditioned:
            self._passes = [routes]
            self.routing_statistics()

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Keep what the forward passes of a training step route, for :meth:`routing_statistics`.

        Passes outside of it, and what an interrupted step has left, are forgotten, with their graphs.
        """
        self._passes, self._collecting = [], True
        try:
            yield
        finally:
            self._collecting = False

    def routing_statistics(self) -> dict[str, Tensor]:
        """Move the running statistics on by the passes of :meth:`collecting`, on every process.

        Returns:
            ``loss_mutual_information``, with several tasks and a weight above 0, and means over the layers:
            ``mutual_information`` in nats, ``entropy`` of P(e|t) averaged over the tasks, in nats, and ``max_load``,
            how often the most used expert of a task is picked as a multiple of the mean. Empty when nothing was routed
            in training.
        """
        passes, self._passes = self._passes, []
        if not passes:
            return {}
        # Of layers that are used in every pass; those in evaluation mode record nothing.
        usages = [layer.usage for layer in self.moe_layers().values() if layer.usage in passes[0].records]
        records: list[list[Record]] = [[each.records[usage] for usage in usages] for each in passes]
        current, running = update_usage(usages, records, self.momentum)
        updates = torch.stack([usage.updates for usage in usages])
        loss = mutual_information_loss(current, running, updates)
        seen = (updates > 0).float()
        load = torch.stack([(usage.load.amax(1) * usage.load.shape[1]).max() for usage in usages])
        statistics = dict(
            mutual_information=-loss.detach() / len(usages),
            entropy=((entropy(running) * seen).sum(1) / seen.sum(1)).mean(),
            max_load=load.mean(),
        )
        if self.conditioned and self.mi_weight:
            statistics["loss_mutual_information"] = self.mi_weight * loss
        return statistics
