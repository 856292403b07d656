"""Layers with experts, written the slow and plain way in float64: every expert for every token, masked by the gates."""

from __future__ import annotations

import torch
from torch import Tensor


def gates_of(layer, tokens: Tensor, route: dict[str, float]) -> Tensor:
    """``(L, E)``: the probability of the chosen experts, 0 for the others."""
    num_experts = sum(bank.num_experts for bank in layer.banks)
    p = torch.zeros(len(tokens), num_experts, dtype=torch.float64)
    for task, share in route.items():
        first, _, last = layer.routers[task]
        hidden = torch.nn.functional.gelu(tokens @ first.weight.double().T + first.bias.double())
        logits = hidden @ last.weight.double().T + last.bias.double()
        p[:, : logits.shape[1]] += share * torch.exp(logits) / torch.exp(logits).sum(1, keepdim=True)
    gates = torch.zeros_like(p)
    for row in range(len(tokens)):
        order = sorted(range(num_experts), key=lambda expert: (-p[row, expert].item(), expert))
        for expert in order[: layer.experts.top_k]:
            gates[row, expert] = p[row, expert]
    return gates


def parameters(layer, name: str) -> Tensor:
    """One parameter of all experts."""
    return torch.cat([getattr(bank, name).double() for bank in layer.banks])


def mlp(layer, x: Tensor, routes: list[dict[str, float]]) -> Tensor:
    """What MoEMLP computes for ``(N, L, d)``."""
    w1, b1, w2, b2 = (parameters(layer, name) for name in ("w1", "b1", "w2", "b2"))
    rows = []
    for tokens, route in zip(x.double(), routes, strict=True):
        gates = gates_of(layer, tokens, route)
        out = torch.zeros_like(tokens)
        for expert in range(len(w1)):
            hidden = torch.nn.functional.gelu(tokens @ w1[expert] + b1[expert])
            out = out + gates[:, expert, None] * (hidden @ w2[expert] + b2[expert])
        rows.append(out)
    return torch.stack(rows)


def attention(layer, x: Tensor, routes: list[dict[str, float]]) -> Tensor:
    """What MoEAttention computes for ``(N, L, d)`` without windows: every head attends, the gates choose."""
    wq, bq, wo, bo = (parameters(layer, name) for name in ("wq", "bq", "wo", "bo"))
    size = wq.shape[-1]
    rows = []
    for tokens, route in zip(x.double(), routes, strict=True):
        gates = gates_of(layer, tokens, route)
        k, v = (tokens @ layer.kv.weight.double().T + layer.kv.bias.double()).split(size, dim=-1)
        out = torch.zeros_like(tokens)
        for expert in range(len(wq)):
            scores = (tokens @ wq[expert] + bq[expert]) @ k.T / size**0.5
            out = out + gates[:, expert, None] * (scores.softmax(-1) @ v @ wo[expert] + bo[expert])
        rows.append(out)
    return torch.stack(rows)
