"""Which routers each image of a batch uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mtadapt.errors import MTAdaptError

if TYPE_CHECKING:
    from mtadapt.models.moe.usage import ExpertUsage

#: The router of one task, or the shares of several, e.g. ``dict(det=0.5, sem_seg=0.5)``.
Route = str | Mapping[str, float]


class Record(NamedTuple):
    """What a layer routed in one forward pass.

    Attributes:
        probabilities: ``(T, E)`` sums over the tokens of each task, with their graph.
        picks: ``(T, E)`` how often each expert was chosen.
        tokens: ``(T,)`` number of tokens.
    """

    probabilities: Tensor
    picks: Tensor
    tokens: Tensor


class Routes:
    """The routes of the images of one forward pass, and what was routed.

    An entry says that a row of the batch takes a share of a task's router. There is one entry a row, with share 1,
    unless routers are mixed.

    Args:
        tasks: tasks of the backbone.
        entries: row, number of the task and share of every entry, by row.
        num_rows: images of the batch.
        device: where the images are.

    Attributes:
        single: the task whose router all rows use; None when they differ.
        mixed: whether a row mixes routers.
        ids: ``(M,)`` number of each entry's task.
        rows: ``(M,)`` row of each entry.
        shares: ``(N, M)`` the share of every entry in every row.
        of_task: ``(T, M)`` which entries are of a task; ``(T, 1)`` with a single one.
    """

    def __init__(
        self, tasks: Sequence[str], entries: Sequence[tuple[int, int, float]], num_rows: int, device: torch.device
    ) -> None:
        self.tasks = tuple(tasks)
        self.mixed = len(entries) > num_rows
        used = {task for _, task, _ in entries}
        self.single = self.tasks[used.pop()] if len(used) == 1 else None
        self._open = True
        self.records: dict[ExpertUsage, Record] = {}
        # One column for all rows that use the same router.
        columns = [task for _, task, _ in entries] if self.single is None else [entries[0][1]]
        self.of_task = F.one_hot(torch.tensor(columns, device=device), len(self.tasks)).T.float()
        if self.single is None:
            rows, ids, shares = zip(*entries, strict=True)
            self.rows = torch.tensor(rows, device=device)
            self.ids = torch.tensor(ids, device=device)
            by_entry = torch.tensor(shares, device=device)
            self.shares = torch.zeros(num_rows, len(entries), device=device)
            self.shares[self.rows, torch.arange(len(entries), device=device)] = by_entry

    @classmethod
    def build(
        cls, routes: Route | Sequence[Route] | None, tasks: Sequence[str], num_rows: int, device: torch.device
    ) -> Routes:
        """Read what the caller of a backbone gives.

        Args:
            routes: one route for all rows, or one a row; None where the backbone has one task.
            tasks: tasks of the backbone.
            num_rows: images of the batch.
            device: where they are.

        Raises:
            MTAdaptError: for None with several tasks, an unknown task, another number of routes than rows, or shares
                that are not positive with the sum 1.
        """
        if routes is None:
            if len(tasks) > 1:
                raise MTAdaptError(f"the backbone has routers of {', '.join(tasks)}; say which the images use")
            routes = tasks[0]
        if isinstance(routes, str):
            check_route(routes, tasks)
            # One entry stands for all rows, and nothing depends on how many there are.
            return cls(tasks, [(0, tasks.index(routes), 1.0)], 1, device)
        each = [routes] * num_rows if isinstance(routes, Mapping) else list(routes)
        if len(each) != num_rows:
            raise MTAdaptError(f"{len(each)} routes for a batch of {num_rows} images; give one route, or one an image")
        entries = []
        for row, route in enumerate(each):
            entries += [(row, tasks.index(task), share) for task, share in check_route(route, tasks).items()]
        return cls(tasks, entries or [(0, 0, 1.0)], num_rows, device)

    def record(self, usage: ExpertUsage, record: Record) -> None:
        """Note what a layer routed; ignored after the pass, where activation checkpointing computes it again."""
        if self._open:
            self.records[usage] = record

    def close(self) -> None:
        """The pass is over."""
        self._open = False


def check_route(route: Route, tasks: Sequence[str]) -> dict[str, float]:
    """Give the share of each task in a route.

    Raises:
        MTAdaptError: for an unknown task, or shares that are not positive with the sum 1.
    """
    shares = {route: 1.0} if isinstance(route, str) else dict(route)
    for task in shares:
        if task not in tasks:
            raise MTAdaptError(f"route {route!r}: no router of task {task!r}; there are {', '.join(tasks)}")
    numbers = all(isinstance(share, (int, float)) and share > 0 for share in shares.values())
    if not numbers or abs(sum(shares.values()) - 1) > 1e-4:
        raise MTAdaptError(f"route {route!r}: the shares must be positive, with the sum 1")
    return shares
