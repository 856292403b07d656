"""The state of all random generators of a process, in a form that a checkpoint can hold."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """State of Python's, NumPy's and PyTorch's global generators, as numbers and tensors.

    ``cuda`` is that of the process's current device, or None without one.
    """
    kind, keys, position, has_gauss, cached = np.random.get_state()  # noqa: NPY002
    assert kind == "MT19937"
    return dict(
        python=random.getstate(),
        numpy=(torch.from_numpy(np.asarray(keys, np.int64)), position, has_gauss, cached),
        torch=torch.get_rng_state(),
        cuda=torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    )


def set_random_state(state: dict[str, Any]) -> None:
    """Put the generators back into a state of :func:`random_state`."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    numpy_keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state(  # noqa: NPY002
        ("MT19937", numpy_keys.cpu().numpy().astype(np.uint32), position, has_gauss, cached)
    )
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
