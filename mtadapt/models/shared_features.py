"""The stand-in for a backbone that makes any stock model a task of a shared network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmengine.model import BaseModule

from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS

#: Where in the shared network a task can tap its features.
SOURCES = ("neck", "backbone")


@MODELS.register_module()
class SharedFeatures(BaseModule):
    """Return the feature maps that are given in the place of an image.

    Written as the ``backbone`` of a stock detector, segmentor or classifier, it lets that model run on the features of
    :class:`~mtadapt.models.MultiTaskModel`, with its own neck, head, losses and post-processing.

    Args:
        source: ``neck`` for what the shared neck gives, ``backbone`` for what the shared backbone gives. Without a
            shared neck both are the same.
        indices: which levels to take, all of them by default.
    """

    def __init__(self, source: str = "neck", indices: Sequence[int] | None = None) -> None:
        super().__init__()
        if source not in SOURCES:
            raise MTAdaptError(f"SharedFeatures: unknown source {source!r}; known: {', '.join(SOURCES)}")
        self.source = source
        self.indices = None if indices is None else tuple(indices)

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Pass on the chosen levels.

        Args:
            features: maps ``(N, C_i, H_i, W_i)``, finest first.
        """
        if self.indices is None:
            return tuple(features)
        return tuple(features[index] for index in self.indices)
