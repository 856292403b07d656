"""Masked image modelling: the pixels of hidden patches from the visible ones."""

from __future__ import annotations

from mmengine.model import BaseModule
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.pretraining.masking import Masking, pixel_mask
from mtadapt.registry import MODELS


@MODELS.register_module()
class MaskedImageBranch(BaseModule):
    """SimMIM: one linear layer turns the last map of a masked image into pixels, compared where they were hidden.

    The decoder is mmpretrain's ``SimMIMLinearDecoder``, the loss that of its ``SimMIMHead`` with an L1 criterion.

    Args:
        backbone: what sees the masked images; gets a mask token, see :class:`Masking`.
        in_channels: channels of its last map.
        encoder_stride: pixels of the image, in each direction, that one position of the last map stands for.

    Reference:
        SimMIM (arXiv 2111.09886).
    """

    def __init__(self, backbone: nn.Module, in_channels: int, encoder_stride: int) -> None:
        super().__init__()
        self.decoder = MODELS.build(
            dict(type="mmpretrain.SimMIMLinearDecoder", in_channels=in_channels, encoder_stride=encoder_stride)
        )
        self.masking = Masking(backbone)

    def loss(self, features: Tensor, images: Tensor, masks: Tensor) -> Tensor:
        """Mean absolute difference of the hidden pixels.

        Args:
            features: last map of the masked images, ``(N, C, H / stride, W / stride)``.
            images: what was hidden, normalised, ``(N, 3, H, W)``.
            masks: ``(N, h, w)``, 1 for hidden patches. Images without any add nothing; with none in the batch the loss
                is zero. Ours; the stock loss is NaN then.

        Raises:
            MTAdaptError: when the decoder's pixels are not those of the images.
        """
        # Not in half precision: the sum is over all hidden pixels of the batch.
        pixels = self.decoder(features).float()
        if pixels.shape != images.shape:
            raise MTAdaptError(
                f"MaskedImageBranch: the decoder gives {tuple(pixels.shape[-2:])} pixels for images of "
                f"{tuple(images.shape[-2:])}; set encoder_stride to the stride of the backbone's last map "
                f"({images.shape[-1] / features.shape[-1]:g})"
            )
        hidden = pixel_mask(masks, images.shape[-2:]).float()
        return ((pixels - images).abs() * hidden).sum() / (hidden.sum().clamp(min=1) * images.shape[1])
