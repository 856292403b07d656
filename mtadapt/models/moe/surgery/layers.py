"""The layers with experts of a config, and their entries in a state dict."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from mtadapt.errors import MTAdaptError, first_line
from mtadapt.models.moe.layers import MoEAttention, MoELayer, bank_sizes, sizes_text
from mtadapt.models.moe.settings import LayerExperts
from mtadapt.registry import MODELS

State = dict[str, Tensor]

#: The last layer of a router, whose rows are experts.
_LAST = ("2.weight", "2.bias")


@dataclass(frozen=True)
class ExpertLayer:
    """One layer.

    Attributes:
        name: of the layer in the model, e.g. ``backbone.stages.0.blocks.0.spatial_block.ffn``.
        setting: of the backbone that it belongs to, ``mlp_experts`` or ``attention_experts``.
        experts: how many in which banks, and how many of them a token uses.
    """

    name: str
    setting: str
    experts: LayerExperts

    @property
    def numbers(self) -> list[list[int]]:
        """Numbers of the experts of each bank; they count through the banks."""
        ends = [sum(self.experts.banks[:number]) for number in range(len(self.experts.banks) + 1)]
        return [[*range(*pair)] for pair in pairwise(ends)]


@dataclass(frozen=True)
class Experts:
    """All layers with experts of a model.

    Attributes:
        layers: in the order of the network.
        routers: names of the routers, in the order of their rows in the statistics.
        banks: router to the number of banks that it sees.
    """

    layers: tuple[ExpertLayer, ...]
    routers: tuple[str, ...]
    banks: Mapping[str, int]

    @classmethod
    def of(cls, config: Config) -> Experts:
        """Read the config of a model.

        Raises:
            MTAdaptError: when its backbone cannot be built or has no experts.
        """
        settings = config.model.backbone
        try:
            with DefaultScope.overwrite_default_scope("mtadapt"):
                backbone = MODELS.build(copy.deepcopy(settings))
        except (KeyError, TypeError) as error:
            raise MTAdaptError(f"model.backbone cannot be built: {first_line(error)}") from error
        found: Mapping[str, MoELayer] = backbone.moe_layers() if hasattr(backbone, "moe_layers") else {}
        if not found:
            raise MTAdaptError(
                f"model.backbone: {type(backbone).__name__} has no experts; give a config with mlp_experts"
            )
        layers = tuple(
            ExpertLayer(
                f"backbone.{name}",
                "attention_experts" if isinstance(layer, MoEAttention) else "mlp_experts",
                layer.experts,
            )
            for name, layer in found.items()
        )
        number = len(layers[0].experts.banks)
        given = settings.get("task_banks") or {}
        return cls(layers, backbone.tasks, {router: given.get(router, number) for router in backbone.tasks})

    def with_banks(self, banks: Sequence[Sequence[int]]) -> list[ExpertLayer]:
        """The layers with other banks.

        Args:
            banks: sizes of the banks of each layer.
        """
        return [
            ExpertLayer(layer.name, layer.setting, LayerExperts(tuple(sizes), layer.experts.top_k))
            for layer, sizes in zip(self.layers, banks, strict=True)
        ]

    def check(self, state: Mapping[str, Tensor]) -> None:
        """Compare the numbers of experts with those of a state dict.

        Raises:
            MTAdaptError: naming the first layer that differs.
        """
        for layer in self.layers:
            given = tuple(bank_sizes(state, f"{layer.name}."))
            if given != layer.experts.banks:
                told = f"{sizes_text(given)} experts" if given else "no experts"
                raise MTAdaptError(
                    f"{layer.name}: the checkpoint has {told}, the config {sizes_text(layer.experts.banks)}; give the "
                    "config that it was trained with"
                )

    def load(self, state: Mapping[str, Tensor], layer: ExpertLayer, router: str) -> Tensor:
        """Share of each expert of a layer among the picks of a router, ``(E,)``."""
        return state[f"{layer.name}.usage.load"][self.routers.index(router)]

    def by_use(self, state: Mapping[str, Tensor], layer: ExpertLayer, router: str) -> list[int]:
        """Numbers of the experts that a router sees, the most used first."""
        seen = self.load(state, layer, router)[: layer.experts.visible(self.banks[router])]
        return seen.sort(descending=True, stable=True).indices.tolist()

    def check_used(self, state: Mapping[str, Tensor], routers: Sequence[str]) -> None:
        """Refuse routers without statistics.

        Raises:
            MTAdaptError: when the checkpoint was written before a router was trained.
        """
        for router in routers:
            if not all(int(state[f"{layer.name}.usage.updates"][self.routers.index(router)]) for layer in self.layers):
                raise MTAdaptError(
                    f"task {router!r}: the checkpoint has no statistics of its experts, because it was never trained "
                    "on images of this task; give a checkpoint of a training, or choose no experts by their use"
                )


def regroup(
    state: Mapping[str, Tensor],
    experts: Experts,
    layer: ExpertLayer,
    banks: Sequence[Sequence[int]],
    routers: Mapping[str, int],
) -> State:
    """Leave chosen experts of a layer in new banks, and chosen routers.

    Args:
        state: the state dict.
        experts: of the model.
        layer: one of its layers.
        banks: numbers of the experts of each new bank, from those in ``layer.numbers``.
        routers: name of a router that stays to the number of new banks that it sees.

    Returns:
        A new state dict. Rows of routers and columns of the statistics are in the order of the new banks.
    """
    parts = (f"{layer.name}.banks.", f"{layer.name}.routers.", f"{layer.name}.usage.")
    new = {key: value for key, value in state.items() if not key.startswith(parts)}
    names = {key.rsplit(".", 1)[1] for key in state if key.startswith(parts[0])}
    for name in sorted(names):
        old = torch.cat([state[f"{parts[0]}{bank}.{name}"] for bank in range(len(layer.experts.banks))])
        for bank, numbers in enumerate(banks):
            new[f"{parts[0]}{bank}.{name}"] = old[torch.tensor([*numbers], dtype=torch.long)]
    for router, seen in routers.items():
        rows = torch.tensor([number for bank in banks[:seen] for number in bank])
        prefix = f"{parts[1]}{router}."
        for key, value in state.items():
            if key.startswith(prefix):
                new[key] = value[rows] if key[len(prefix) :] in _LAST else value
    kept = torch.tensor([experts.routers.index(router) for router in routers])
    columns = torch.tensor([number for bank in banks for number in bank])
    for name in ("probability", "load"):
        new[f"{parts[2]}{name}"] = state[f"{parts[2]}{name}"][kept][:, columns]
    new[f"{parts[2]}updates"] = state[f"{parts[2]}updates"][kept]
    return new


def rename_router(state: Mapping[str, Tensor], old: str, new: str) -> State:
    """Give a router another name in all layers."""
    renamed = {}
    for key, value in state.items():
        name, found, rest = key.partition(f".routers.{old}.")
        renamed[f"{name}.routers.{new}.{rest}" if found and key.startswith("backbone.") else key] = value
    return renamed
