"""Checkpoints of public layouts, made from models of the real libraries."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in evaluation mode, with every parameter and statistic as no initialisation makes it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        statistics = [(name, value) for name, value in model.named_buffers() if "running_" in name]
        for name, value in [*model.named_parameters(), *statistics]:
            noise = torch.randn(value.shape, generator=generator)
            value.copy_(1 + noise.abs() / 8 if name.endswith("running_var") else noise / 8)
    model.eval()
    return model


def behind(prefix: str, state: Mapping[str, Tensor], change: float = 0.0) -> State:
    """The entries behind a prefix; those of a second encoder are changed, so that it is seen which one was loaded."""
    return {f"{prefix}{name}": value + change if change else value for name, value in state.items()}


def without(state: Mapping[str, Tensor], *starts: str) -> State:
    return {name: value for name, value in state.items() if not name.startswith(starts)}


def some(*names: str) -> State:
    """Entries of other parts of the model."""
    return {name: torch.ones(2, 2) for name in names}


def training(state: Any, key: str = "state_dict", **more: Any) -> dict:
    """The checkpoint of a training: its optimizer and settings stand beside the weights."""
    optimizer = dict(state={0: dict(exp_avg=torch.ones(3))}, param_groups=[dict(lr=0.1, params=[0])])
    return {key: state, "epoch": 200, "optimizer": optimizer, "args": Namespace(lr=0.1, arch="x"), **more}


def twice(online: str, momentum: str, *others: str, **settings: Any) -> Callable[[State], dict]:
    """A layout with a second encoder, whose weights differ."""
    return lambda state: training(
        {**behind(momentum, state, change=1), **behind(online, state), **some(*others)}, **settings
    )


def save(path: Path, content: Any, **settings: Any) -> Path:
    torch.save(content, path, **settings)
    return path


def assert_same(given: Any, expected: Any, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    given, expected = list(given), list(expected)
    assert len(given) == len(expected) > 0
    for one, other in zip(given, expected, strict=True):
        assert one.std() > 1e-3
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)
