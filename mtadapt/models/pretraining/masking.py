"""Hide parts of an image from a stock backbone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.model.weight_init import trunc_normal_
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtadapt.errors import MTAdaptError


class Masking:
    """Give a backbone a learnable mask token, which replaces what a mask hides.

    The token is the backbone's entry ``mask_token``, as in the checkpoints of SimMIM. In transformers, whose
    ``patch_embed`` gives tokens ``(N, L, C)`` and their grid, it takes the place of hidden tokens, before position
    embeddings are added; in other backbones it is a colour ``(1, 3, 1, 1)`` and takes the place of hidden pixels (Ours;
    convolutions have no tokens). Without a mask the backbone is what it was.

    Args:
        backbone: any stock backbone; gets a parameter and a hook.

    Reference:
        SimMIM (arXiv 2111.09886), section 3.2.
    """

    def __init__(self, backbone: nn.Module) -> None:
        self.backbone = backbone
        self.mask: Tensor | None = None
        # Bound methods, so that a deep copy of the model hides tokens of the copy.
        embed: Any = getattr(backbone, "patch_embed", None)
        if embed is not None:
            if not hasattr(embed, "embed_dims"):
                raise MTAdaptError(
                    f"MaskedImageBranch: the patch_embed of {type(backbone).__name__} makes no tokens; use a Swin "
                    "Transformer, a ViT or a ResNet, or set masked_image=None"
                )
            shape = [1, 1, embed.embed_dims]
            embed.register_forward_hook(self._hide_tokens)
        else:
            shape = [1, 3, 1, 1]
            backbone.register_forward_pre_hook(self._hide_pixels)
        if not hasattr(backbone, "mask_token"):
            backbone.mask_token = nn.Parameter(trunc_normal_(torch.zeros(shape), std=0.02))

    @contextmanager
    def hiding(self, mask: Tensor, keep_statistics: bool) -> Iterator[None]:
        """Hide what the mask says in the forward passes inside.

        Args:
            mask: ``(N, h, w)``, 1 for hidden patches.
            keep_statistics: leave the running statistics of BatchNorm alone, because masked images are not what the
                backbone will see later. Ours.
        """
        # Found anew, because SyncBatchNorm may have taken the place of what was built.
        norms = [module for module in self.backbone.modules() if isinstance(module, _BatchNorm)]
        if norms and keep_statistics and getattr(self.backbone, "with_cp", False):
            raise MTAdaptError(
                f"MaskedImageBranch: with_cp=True of {type(self.backbone).__name__} computes masked images again in "
                "the backward pass, where they would enter the running statistics; set with_cp=False"
            )
        momenta = [norm.momentum for norm in norms]
        self.mask = mask
        try:
            for norm in norms if keep_statistics else ():
                norm.momentum = 0.0
            yield
        finally:
            self.mask = None
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum

    def _hide_tokens(self, module: nn.Module, args: Any, output: tuple[Tensor, tuple[int, int]]) -> Any:
        if self.mask is None:
            return None
        tokens, grid = output
        if tuple(self.mask.shape[1:]) != tuple(grid):
            raise MTAdaptError(
                f"the masks are {_times(self.mask.shape[1:])} and the tokens of {type(self.backbone).__name__} "
                f"{_times(grid)}; set model_patch_size of MaskPatches to the backbone's patch size"
            )
        hidden = self.mask.flatten(1)[..., None].to(tokens.dtype)
        return tokens * (1 - hidden) + self._token().to(tokens.dtype) * hidden, grid

    def _hide_pixels(self, module: nn.Module, args: tuple[Tensor, ...]) -> Any:
        if self.mask is None:
            return None
        hidden = pixel_mask(self.mask, args[0].shape[-2:]).to(args[0].dtype)
        return (args[0] * (1 - hidden) + self._token() * hidden, *args[1:])

    def _token(self) -> Tensor:
        return self.backbone.get_parameter("mask_token")


def pixel_mask(mask: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Enlarge masks of patches to pixels.

    Args:
        mask: ``(N, h, w)``.
        size: height and width of the image, multiples of h and w.

    Returns:
        ``(N, 1, H, W)``.

    Raises:
        MTAdaptError: when the image is no multiple of the mask.
    """
    (height, width), (rows, columns) = size, mask.shape[1:]
    if height % rows or width % columns:
        raise MTAdaptError(
            f"the masks are {_times((rows, columns))} and the image {_times((height, width))}, no multiple of it; set "
            "input_size of MaskPatches to the size of the views"
        )
    mask = mask.repeat_interleave(height // rows, 1).repeat_interleave(width // columns, 2)
    return mask[:, None]


def _times(size: Any) -> str:
    return "x".join(str(int(side)) for side in size)
