"""Experts from the weights of a dense layer, made while a checkpoint of the dense model is loaded.

The layers with experts call these functions from their load hooks, so a public checkpoint of the dense backbone is all
that it takes: ``init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone.')``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from mmengine.logging import print_log
from torch import Tensor

from mtadapt.errors import MTAdaptError

if TYPE_CHECKING:
    from mtadapt.models.moe.layers import MoEAttention, MoELayer, MoEMLP

_MLP = ("layers.0.0.weight", "layers.0.0.bias", "layers.1.weight", "layers.1.bias")
_MLP_SCALE = "gamma2.weight"
_ATTENTION = ("qkv.weight", "proj.weight")
_ATTENTION_SCALE = "gamma1.weight"


def upcycle_mlp(state_dict: dict[str, Tensor], prefix: str, layer: MoEMLP) -> None:
    """Turn the entries of mmcv's ``FFN`` in a state dict into those of a layer with experts.

    Expert j gets slice j % k of the hidden units. At the start all gates are 1/E, as routers begin at zero, and a token
    picks the experts 0 to k - 1, which together hold every slice; with the output weights times E and the output bias
    times E/k the layer then equals the dense one. A layer scale (``gamma2``) is multiplied into the output. Nothing
    happens where the state dict has no dense layer at the prefix.

    Args:
        state_dict: is changed in place.
        prefix: of the layer, with the dot at its end.
        layer: with experts.

    Raises:
        MTAdaptError: for a dense layer of another kind or width, or routers that see different numbers of experts.

    Reference:
        Sparse Upcycling: Training Mixture-of-Experts from Dense Checkpoints (arXiv 2212.05055). Ours: slices in the
        place of whole copies, and the scales that make it exact.
    """
    dense = _take(state_dict, prefix, layer, _MLP, (_MLP_SCALE,))
    if dense is None:
        return
    w1, b1, w2, b2 = (dense[key] for key in _MLP)
    embed_dims, hidden = layer.banks[0].w1.shape[1:]
    k, num_experts = layer.experts.top_k, _num_experts(prefix, layer)
    if w1.shape != (k * hidden, embed_dims) or w2.shape != (embed_dims, k * hidden):
        raise MTAdaptError(
            f"{_name(prefix)}: the checkpoint's dense FFN goes from {w1.shape[1]} to {w1.shape[0]} channels, the "
            f"experts take {embed_dims} to top_k * hidden = {k} * {hidden}; use the architecture of the checkpoint"
        )
    scale = dense.get(_MLP_SCALE, w2.new_ones(embed_dims))
    w2, b2 = w2 * scale[..., None], b2 * scale
    experts = dict(
        w1=w1.view(k, hidden, embed_dims).transpose(1, 2),
        b1=b1.view(k, hidden),
        w2=w2.view(embed_dims, k, hidden).permute(1, 2, 0) * num_experts,
        b2=(b2 * (num_experts / k)).expand(k, -1),
    )
    _put(state_dict, prefix, layer, experts)


def upcycle_attention(state_dict: dict[str, Tensor], prefix: str, layer: MoEAttention) -> None:
    """Turn the entries of mmpretrain's ``MultiheadAttention`` into those of a mixture of attention heads.

    Expert j gets query and output projection of head j % heads, the output scaled as in :func:`upcycle_mlp`. The shared
    key and value are the means over the heads, so the layer only approximates the dense one: it needs training.

    Args:
        state_dict: is changed in place.
        prefix: of the layer, with the dot at its end.
        layer: with experts.

    Raises:
        MTAdaptError: for a dense layer of another kind or width, or routers that see different numbers of experts.

    Reference:
        Means over heads: GQA (arXiv 2305.13245). Ours: to use them here.
    """
    dense = _take(state_dict, prefix, layer, _ATTENTION, ("qkv.bias", "proj.bias", _ATTENTION_SCALE))
    if dense is None:
        return
    qkv, proj = (dense[key] for key in _ATTENTION)
    embed_dims, size = layer.banks[0].wq.shape[1:]
    k, num_experts = layer.experts.top_k, _num_experts(prefix, layer)
    if qkv.shape != (3 * embed_dims, embed_dims) or proj.shape != (embed_dims, embed_dims) or embed_dims % size:
        raise MTAdaptError(
            f"{_name(prefix)}: the checkpoint's dense attention has {qkv.shape[1]} channels and qkv of {qkv.shape[0]}, "
            f"the experts are heads of {size} out of {embed_dims} channels; use the architecture of the checkpoint"
        )
    heads = embed_dims // size
    w_q, w_k, w_v = qkv.view(3, heads, size, embed_dims)
    b_q, b_k, b_v = dense.get("qkv.bias", qkv.new_zeros(3 * embed_dims)).view(3, heads, size)
    scale = dense.get(_ATTENTION_SCALE, proj.new_ones(embed_dims))
    proj = proj * scale[..., None]
    bias = dense.get("proj.bias", proj.new_zeros(embed_dims)) * scale
    experts = dict(
        wq=w_q.transpose(1, 2),
        bq=b_q,
        wo=proj.view(embed_dims, heads, size).permute(1, 2, 0) * (num_experts * heads / k),
        bo=(bias * (num_experts / k)).expand(heads, -1),
    )
    state_dict[f"{prefix}kv.weight"] = torch.cat([w_k.mean(0), w_v.mean(0)])
    state_dict[f"{prefix}kv.bias"] = torch.cat([b_k.mean(0), b_v.mean(0)])
    _put(state_dict, prefix, layer, experts)


def _take(
    state_dict: dict[str, Tensor], prefix: str, layer: MoELayer, required: Sequence[str], optional: Sequence[str]
) -> dict[str, Tensor] | None:
    """Move the dense entries out of the state dict, in float32 (of half-precision checkpoints E times may overflow)."""
    own = {name for name, _ in layer.named_children()}
    found = {key[len(prefix) :]: key for key in state_dict if key.startswith(prefix)}
    dense = {key: full for key, full in found.items() if key.split(".")[0] not in own}
    if not dense or any(key.startswith("banks.") for key in found):
        return None
    wrong = [key for key in dense if key not in (*required, *optional)]
    missing = [key for key in required if key not in dense]
    if wrong or missing:
        what = f"has {wrong[0]!r}" if wrong else f"lacks {missing[0]!r}"
        raise MTAdaptError(
            f"{_name(prefix)}: experts cannot be made from the checkpoint's dense layer, which {what}; they are made "
            f"from {', '.join(required)}"
        )
    return {key: state_dict.pop(full).float() for key, full in dense.items()}


def _put(state_dict: dict[str, Tensor], prefix: str, layer: MoELayer, kinds: dict[str, Tensor]) -> None:
    """Deal the different experts out to the banks in turn, and begin routers and statistics anew."""
    start = 0
    for bank, size in enumerate(layer.experts.banks):
        numbers = torch.arange(start, start + size)
        for name, each in kinds.items():
            state_dict[f"{prefix}banks.{bank}.{name}"] = each[numbers.to(each.device) % len(each)]
        start += size
    for key, value in layer.state_dict().items():
        if key.startswith("usage.") or (key.startswith("routers.") and key.split(".")[-2] == "2"):
            state_dict[prefix + key] = torch.zeros_like(value)
        elif key.startswith("routers."):
            state_dict[prefix + key] = value
    print_log(f"{_name(prefix)}: {layer.experts.num_experts} experts made from the dense layer", logger="current")


def _num_experts(prefix: str, layer: MoELayer) -> int:
    """Experts that every router sees."""
    seen = {task: layer.routers[task][2].out_features for task in layer.tasks}
    if len(set(seen.values())) > 1:
        raise MTAdaptError(
            f"{_name(prefix)}: experts cannot be made from a dense checkpoint when routers see different numbers of "
            f"them ({seen}); leave task_banks out"
        )
    return seen[layer.tasks[0]]


def _name(prefix: str) -> str:
    return prefix.rstrip(".") or "layer"
