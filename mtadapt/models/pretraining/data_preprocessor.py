"""Normalise the views of a batch on the device."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.model import ImgDataPreprocessor

from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample


@MODELS.register_module()
class PretrainDataPreprocessor(ImgDataPreprocessor):
    """Turn a list of uint8 views into one normalised batch.

    The views are moved to the device as uint8 and converted there.

    Args:
        **kwargs: those of :class:`mmengine.model.ImgDataPreprocessor`: ``mean``, ``std``, ``bgr_to_rgb``.

    Raises:
        MTAdaptError: when images of a batch differ in size or in the number of views.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not self._enable_normalize:
            raise MTAdaptError(
                "PretrainDataPreprocessor: mean and std are not set; the pixels that are reconstructed have to be "
                "normalised, e.g. mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]"
            )

    def forward(self, data: dict, training: bool = False) -> dict:
        """Prepare a batch.

        Args:
            data: ``inputs``, a list of uint8 ``(V, 3, H, W)``, V views of an image, and ``data_samples`` or None.
            training: not used; a validation is prepared in the same way.

        Returns:
            ``inputs`` float32 ``(N, V, 3, H, W)`` and ``data_samples``.
        """
        data = self.cast_data(data)
        images, samples = data["inputs"], data.get("data_samples")
        first = images[0].shape
        for number, image in enumerate(images):
            if image.dim() != 4 or image.shape != first:
                path = samples[number].get("img_path") if samples else f"image {number}"
                raise MTAdaptError(
                    f"{path}: views of the shape {tuple(image.shape)} in a batch of {tuple(first)} (views, 3, height, "
                    "width); give all sources the same PretrainViews, and pack with PackPretrainInputs"
                )
        inputs = torch.stack(list(images))
        if self._channel_conversion:
            inputs = inputs.flip(2)
        inputs = (inputs.float() - self.mean) / self.std
        return dict(inputs=inputs, data_samples=samples or [MultiTaskDataSample() for _ in images])
