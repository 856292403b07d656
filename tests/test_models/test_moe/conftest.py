"""What the tests of experts share."""

from __future__ import annotations

import pytest

from mtadapt.models.moe import _operators


@pytest.fixture
def use(monkeypatch):
    """Compute with kernels by their name, also those that a GPU uses."""
    return lambda kernels: monkeypatch.setattr(_operators, "choose_kernels", lambda *_: _operators.KERNELS[kernels])
