"""Comparison of a task with the stock model that was made of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mtadapt.engine.measure import build_model
from mtadapt.engine.same_outputs import Comparison
from mtadapt.errors import MTAdaptError
from mtadapt.models.tasks import native_samples
from mtadapt.structures import MultiTaskDataSample


def check_stock_model(
    config: Config,
    state: Mapping[str, Tensor],
    task: str,
    stock: Config,
    weights: Mapping[str, Tensor],
    size: tuple[int, int],
) -> int:
    """Compare what the heads of both models give for one image of noise.

    Args:
        config: of the multi-task model.
        state: its state dict.
        task: name of the task.
        stock: config of the stock model.
        weights: its state dict.
        size: width and height of the image.

    Returns:
        Number of values that were compared.

    Raises:
        MTAdaptError: when they are not equal to the bit.
    """
    model: Any = build_model(config, state)
    single: Any = build_model(stock, weights)
    width, height = size
    image = torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    meta = dict(img_id=0, img_path="noise", img_shape=(height, width), ori_shape=(height, width), scale_factor=(1, 1))
    sample = MultiTaskDataSample(metainfo=dict(meta, source="noise", labelled_tasks=(task,)))
    found = Comparison()
    with torch.no_grad():
        data = model.data_preprocessor(dict(inputs=[image.clone()], data_samples=[sample]), False)
        head = model.tasks[task]
        natives = native_samples(head, data["data_samples"])
        features = model.extract_features(data["inputs"], task)[head.backbone.source]
        ours = head(features, natives, mode="tensor")
        data = single.data_preprocessor(dict(inputs=[image], data_samples=[type(natives[0])(metainfo=meta)]), False)
        found.add("raw outputs", task, "", ours, single(**data, mode="tensor"))
    if found.differences:
        raise MTAdaptError(
            f"the stock model is not the same as the task: {found.differences[0]}; write --no-check to export it anyway"
        )
    return sum(values for _, values in found.counts.values())
