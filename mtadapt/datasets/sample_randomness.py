"""Randomness that belongs to a sample, whoever loads it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


def seed_sample(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators, from which stock transforms draw.

    Args:
        seed: of 64 bits.
    """
    random.seed(seed)
    # Of 32 bits, because NumPy takes five times as long for more.
    np.random.seed(seed >> 32)  # noqa: NPY002
    torch.default_generator.manual_seed(seed % 2**63)


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Put the generators of the main process back afterwards, because the model draws from them.

    In a worker of the data loader every sample brings its own seed, and nothing else draws.
    """
    if get_worker_info() is not None:
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.default_generator.set_state(states[2])
