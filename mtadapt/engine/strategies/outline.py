"""Names and shapes of a model whose parameters are spread over processes."""

from __future__ import annotations

import copy
from typing import Any

from mmengine.model import is_model_wrapper
from torch import nn


def outline(model: nn.Module) -> nn.Module:
    """Copy a model onto the meta device: modules, names, shapes and what trains, without values."""
    return copy.deepcopy(model).to("meta")


def plain_model(runner: Any) -> nn.Module:
    """The runner's model without its wrapper.

    Of a model whose parameters are spread over processes this is the outline that its strategy took before it spread
    them, because a process alone holds only pieces.

    Args:
        runner: a runner of MMEngine.
    """
    own = getattr(getattr(runner, "strategy", None), "outline", None)
    if own is not None:
        return own
    return runner.model.module if is_model_wrapper(runner.model) else runner.model
