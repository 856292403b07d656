"""Randomness that belongs to a sample, whoever loads it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


@contextmanager
def sample_randomness(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and PyTorch's global generators, from which stock transforms draw.

    In the main process their states are put back afterwards, because the model draws from them; in a worker of the data
    loader every sample brings its own seed, and nothing else draws.

    Args:
        seed: of 64 bits.
    """
    keep = get_worker_info() is None
    if keep:
        states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002
    try:
        random.seed(seed)
        np.random.seed([seed % 2**32, seed >> 32])  # noqa: NPY002
        torch.default_generator.manual_seed(seed % 2**63)
        yield
    finally:
        if keep:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
            torch.default_generator.set_state(states[2])
