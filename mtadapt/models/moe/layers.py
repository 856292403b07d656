"""Transformer layers whose tokens each use a few of many experts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks.drop import build_dropout
from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.dispatch import Dispatch, expert_combine, expert_mlp, expert_project, sort_by_expert
from mtadapt.models.moe.router import TaskRouters, choose_experts
from mtadapt.models.moe.routes import Routes
from mtadapt.models.moe.settings import LayerExperts, check_task_banks
from mtadapt.models.moe.upcycling import upcycle_attention, upcycle_mlp
from mtadapt.models.moe.usage import ExpertUsage


class ExpertBank(nn.Module):
    """Parameters of the experts that were made at the same time, stacked.

    Args:
        num_experts: E of the bank.
        shapes: name of a weight to its shape (in, out) in one expert; a bias with the name ``b`` + the rest of the
            weight's name belongs to it: ``w1`` and ``b1``.
    """

    def __init__(self, num_experts: int, shapes: Mapping[str, tuple[int, int]]) -> None:
        super().__init__()
        self.num_experts = num_experts
        for name, (rows, columns) in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(num_experts, rows, columns)))
            self.register_parameter(_bias(name), nn.Parameter(torch.empty(num_experts, columns)))
        self._weights = tuple(shapes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As :class:`torch.nn.Linear` begins."""
        for name in self._weights:
            weight, bias = getattr(self, name), getattr(self, _bias(name))
            bound = 1 / math.sqrt(weight.shape[1])
            nn.init.uniform_(weight, -bound, bound)
            nn.init.uniform_(bias, -bound, bound)


class MoELayer(BaseModule):
    """What layers with experts have in common: banks, routers and statistics.

    Args:
        embed_dims: channels d of a token.
        shapes: of an expert's weights, see :class:`ExpertBank`.
        experts: how many experts in which banks, and how many of them a token uses.
        tasks: names of the tasks.
        task_banks: number of banks, from the first one, that a task's router sees; all for tasks that are not named.

    Raises:
        MTAdaptError: when a task cannot see ``top_k`` experts; at loading, when the checkpoint has other experts.
    """

    def __init__(
        self,
        embed_dims: int,
        shapes: Mapping[str, tuple[int, int]],
        experts: LayerExperts,
        tasks: Sequence[str],
        task_banks: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        task_banks = task_banks or {}
        check_task_banks(type(self).__name__, experts, tasks, task_banks)
        self.experts = experts
        self.tasks = tuple(tasks)
        self.banks = ModuleList([ExpertBank(size, shapes) for size in experts.banks])
        self.routers = TaskRouters(embed_dims, experts, tasks, task_banks)
        self.usage = ExpertUsage(len(tasks), experts.num_experts)

    def route(self, x: Tensor, routes: Routes) -> tuple[Tensor, Dispatch]:
        """Choose the experts of every token.

        Args:
            x: ``(N, L, d)``.
            routes: of the N rows.

        Returns:
            Gates ``(N * L, k)`` in float32, and the dispatch. The gates are probabilities over all experts, so they do
            not add up to 1.
        """
        p, by_entry = self.routers(x, routes)
        gates, picks = choose_experts(p, self.experts.top_k)
        self.usage.record(routes, by_entry, picks)
        return gates.flatten(0, 1), sort_by_expert(picks.flatten(0, 1), self.experts.num_experts)

    def weights(self, *names: str) -> list[Tensor]:
        """Weights and biases of the experts of all banks, in the order of ``names``."""
        found = []
        for name in names:
            for each in (name, _bias(name)):
                parts = [getattr(bank, each) for bank in self.banks]
                found.append(parts[0] if len(parts) == 1 else torch.cat(parts))
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        name = prefix.rstrip(".")
        given = bank_sizes(state_dict, prefix)
        if given and given != [*self.experts.banks]:
            raise MTAdaptError(
                f"{name}: the checkpoint has {sizes_text(given)} experts, the config {sizes_text(self.experts.banks)}; "
                "set num_experts to those of the checkpoint"
            )
        # The statistics have a row a task, in the order of the routers.
        routers = [*dict.fromkeys(key.split(".")[1] for key in _below(state_dict, prefix, "routers."))]
        if routers and routers != [*self.tasks]:
            raise MTAdaptError(
                f"{name}: the checkpoint has routers of {', '.join(routers)}, the config of {', '.join(self.tasks)}; "
                "write backbone.tasks as in the checkpoint, in this order"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)


class MoEMLP(MoELayer):
    """A transformer's MLP of many small experts, of which each token uses ``top_k``.

    y = sum over the chosen experts of p_e (GELU(x W1_e + b1_e) W2_e + b2_e), with p the softmax of the task's router
    over all experts. With ``hidden_dims`` = d_ff / top_k a token costs what it costs in a dense MLP with d_ff hidden
    units. No token is dropped.

    Args:
        embed_dims: channels d of a token.
        hidden_dims: hidden units of one expert.
        experts: how many experts in which banks, and ``top_k``.
        tasks: names of the tasks.
        task_banks: see :class:`MoELayer`.
        dropout_layer: stochastic depth, as in mmcv's FFN.

    Reference:
        Mod-Squad (CVPR 2023) and arXiv 2306.17165.
    """

    def __init__(
        self,
        embed_dims: int,
        hidden_dims: int,
        experts: LayerExperts,
        tasks: Sequence[str],
        task_banks: Mapping[str, int] | None = None,
        dropout_layer: dict | None = None,
    ) -> None:
        shapes = dict(w1=(embed_dims, hidden_dims), w2=(hidden_dims, embed_dims))
        super().__init__(embed_dims, shapes, experts, tasks, task_banks)
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()

    def forward(self, x: Tensor, routes: Routes, identity: Tensor | None = None) -> Tensor:
        """Run the chosen experts.

        Args:
            x: ``(N, L, d)``.
            routes: of the N rows.
            identity: what is added; None for nothing.

        Returns:
            ``(N, L, d)``.
        """
        gates, dispatch = self.route(x, routes)
        y = expert_mlp(x.flatten(0, 1), gates, dispatch, *self.weights("w1", "w2")).view(x.shape)
        y = self.dropout_layer(y)
        return y if identity is None else identity + y

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        upcycle_mlp(state_dict, prefix, self)
        super()._load_from_state_dict(state_dict, prefix, *args)


class MoEAttention(MoELayer):
    """A mixture of attention heads: a token chooses ``top_k`` heads, each with its own query and output projection.

    All heads share one key and one value projection.

    Args:
        embed_dims: channels d of a token.
        head_dims: channels of a head; d / top_k makes it as wide as multi-head attention.
        experts: how many heads in which banks, and ``top_k``.
        tasks: names of the tasks.
        task_banks: see :class:`MoELayer`.
        dropout_layer: stochastic depth.

    Reference:
        Mixture of Attention Heads: Selecting Attention Heads Per Token (arXiv 2210.05144), as Mod-Squad uses it.
    """

    def __init__(
        self,
        embed_dims: int,
        head_dims: int,
        experts: LayerExperts,
        tasks: Sequence[str],
        task_banks: Mapping[str, int] | None = None,
        dropout_layer: dict | None = None,
    ) -> None:
        shapes = dict(wq=(embed_dims, head_dims), wo=(head_dims, embed_dims))
        super().__init__(embed_dims, shapes, experts, tasks, task_banks)
        self.kv = nn.Linear(embed_dims, 2 * head_dims)
        self.dropout_layer = build_dropout(dropout_layer) if dropout_layer else nn.Identity()

    def forward(
        self,
        x: Tensor,
        routes: Routes,
        partition: Callable[[Tensor], Tensor] | None = None,
        reverse: Callable[[Tensor], Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Attend with the chosen heads.

        Args:
            x: ``(N, L, d)``.
            routes: of the N rows.
            partition: makes ``(B, n, C)`` windows of ``(N, L, C)`` for any C; None for attention among all tokens.
            reverse: undoes it.
            mask: ``(B, 1, 1, n)`` booleans, false for the keys that padding added; None for no padding.

        Returns:
            ``(N, L, d)``.
        """
        gates, dispatch = self.route(x, routes)
        wq, bq, wo, bo = self.weights("wq", "wo")
        q = expert_project(x.flatten(0, 1), dispatch, wq, bq)
        heads, size = q.shape[1:]
        q, kv = q.reshape(*x.shape[:2], heads * size), self.kv(x)
        if partition is not None:
            q, kv = partition(q), partition(kv)
        q = q.unflatten(-1, (heads, size)).transpose(1, 2)
        k, v = kv[:, None].expand(-1, heads, -1, -1).chunk(2, dim=-1)
        a = F.scaled_dot_product_attention(q, k.to(q.dtype), v.to(q.dtype), attn_mask=mask)
        a = a.transpose(1, 2).flatten(2)
        if reverse is not None:
            a = reverse(a)
        a = a.reshape(-1, heads, size)
        return self.dropout_layer(expert_combine(a, gates, dispatch, wo, bo).view(x.shape))

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        upcycle_attention(state_dict, prefix, self)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _bias(weight: str) -> str:
    return "b" + weight[1:]


def bank_sizes(state_dict: Mapping[str, Tensor], prefix: str) -> list[int]:
    """Experts of each bank of a layer in a state dict.

    Args:
        state_dict: of a model.
        prefix: of the layer, with the dot at its end.
    """
    sizes = {int(key.split(".")[1]): len(state_dict[prefix + key]) for key in _below(state_dict, prefix, "banks.")}
    return [sizes[bank] for bank in sorted(sizes)]


def _below(state_dict: Mapping[str, Tensor], prefix: str, part: str) -> list[str]:
    """Keys that begin with a part of a layer, without the layer's prefix."""
    return [key[len(prefix) :] for key in state_dict if key.startswith(prefix + part)]


def sizes_text(sizes: Sequence[int]) -> str:
    """Sizes of banks for a message: ``8 + 2``."""
    return " + ".join(str(size) for size in sizes)
