"""A small network a task that chooses the experts of every token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import ModuleDict, Sequential
from torch import Tensor, nn

from mtadapt.models.moe.dispatch import expert_project, sort_by_expert
from mtadapt.models.moe.routes import Routes
from mtadapt.models.moe.settings import LayerExperts


class TaskRouters(ModuleDict):
    """One router a task: Linear(d, d/4), GELU, Linear(d/4, E), whose last layer starts at zero.

    Args:
        embed_dims: channels d of a token.
        experts: the experts of the layer.
        tasks: names of the tasks.
        task_banks: number of banks, from the first one, that a task's router sees; all for tasks that are not named.

    Reference:
        An Efficient General-Purpose Modular Vision Model via Multi-Task Heterogeneous Training (arXiv 2306.17165).
    """

    def __init__(
        self, embed_dims: int, experts: LayerExperts, tasks: Sequence[str], task_banks: Mapping[str, int]
    ) -> None:
        visible = {task: experts.visible(task_banks.get(task, len(experts.banks))) for task in tasks}
        super().__init__({task: _Router(embed_dims, visible[task]) for task in tasks})
        self._visible = visible

    def forward(self, x: Tensor, routes: Routes) -> tuple[Tensor, Tensor]:
        """Probabilities of the experts.

        Args:
            x: ``(N, L, d)``.
            routes: of the N rows.

        Returns:
            ``(N, L, E')`` in float32: the softmax of the row's router over the experts that it sees, where rows mix
            routers the mean of theirs by share, and ``(M, L, E')``, the same for every entry of the routes. E' is
            smaller than E where nobody sees the last experts.
        """
        if routes.single is not None:
            p = _softmax(self[routes.single](x))
            return p, p
        entries = x[routes.rows] if routes.mixed else x
        p = _softmax(self._several(entries, routes.ids))
        if not routes.mixed:
            return p, p
        with torch.autocast(p.device.type, enabled=False):
            return (routes.shares @ p.flatten(1)).unflatten(1, p.shape[1:]), p

    def _several(self, x: Tensor, ids: Tensor) -> Tensor:
        """Logits of rows with different routers, which are dispatched as tokens to experts are."""
        routers = list(self.values())
        num_experts = max(self._visible.values())
        dispatch = sort_by_expert(ids.repeat_interleave(x.shape[1])[:, None], len(routers))
        pads = [(0, num_experts - visible) for visible in self._visible.values()]
        w1, b1, w2, b2 = (
            torch.stack([router[0].weight.T for router in routers]),
            torch.stack([router[0].bias for router in routers]),
            torch.stack([F.pad(router[2].weight.T, pad) for router, pad in zip(routers, pads, strict=True)]),
            torch.stack([F.pad(router[2].bias, pad) for router, pad in zip(routers, pads, strict=True)]),
        )
        hidden = F.gelu(expert_project(x.flatten(0, 1), dispatch, w1, b1)[:, 0])
        logits = expert_project(hidden, dispatch, w2, b2)[:, 0].unflatten(0, x.shape[:2])
        visible = torch.tensor([*self._visible.values()], device=x.device)[ids]
        unseen = torch.arange(num_experts, device=x.device) >= visible[:, None]
        return logits.float().masked_fill(unseen[:, None], float("-inf"))


class _Router(Sequential):
    def __init__(self, embed_dims: int, num_experts: int) -> None:
        hidden = max(embed_dims // 4, 1)
        super().__init__(nn.Linear(embed_dims, hidden), nn.GELU(), nn.Linear(hidden, num_experts))
        self.init_weights()

    def init_weights(self) -> None:
        """All experts are equally probable at the start."""
        nn.init.zeros_(self[2].weight)
        nn.init.zeros_(self[2].bias)


def _softmax(logits: Tensor) -> Tensor:
    return logits.float().softmax(-1)


def choose_experts(p: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """The most probable experts.

    Args:
        p: ``(..., E)``.
        top_k: how many.

    Returns:
        Their probabilities and numbers, ``(..., k)``. Of equal ones those with the lowest numbers, on every device,
        which :func:`torch.topk` leaves open.
    """
    gates, picks = p.sort(dim=-1, descending=True, stable=True)
    return gates[..., :top_k], picks[..., :top_k]
