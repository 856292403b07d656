"""The ResNets of CLIP, which are no torchvision ResNets."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS

_STAGES = 4


@MODELS.register_module()
class CLIPResNet(BaseModule):
    """CLIP's ResNet without its attention pooling: a stem of three convolutions, and pooling in the place of strides.

    open_clip builds it, and the entries have the names of CLIP's checkpoints, see :func:`mtadapt.zoo.load_backbone`.
    Gives maps of 4, 8, 16 and 32 times ``width`` channels at strides 4, 8, 16 and 32. CLIP's inputs are RGB with the
    mean (122.771, 116.746, 104.094) and the deviation (68.501, 66.632, 70.323).

    Args:
        layers: bottlenecks of the four stages: (3, 4, 6, 3) for RN50, (3, 4, 23, 3) for RN101, (4, 6, 10, 6) for
            RN50x4.
        width: channels of the stem: 64 for RN50 and RN101, 80 for RN50x4.
        out_indices: which of the four levels to give.
        frozen_stages: 0 freezes the stem, n the first n stages too, -1 nothing.
        norm_eval: keep batch norm in evaluation mode in training, as is usual with few images a batch.
        init_cfg: as in :class:`mmengine.model.BaseModule`.

    Raises:
        MTAdaptError: for a level or stage that there is not.

    Reference:
        Learning Transferable Visual Models From Natural Language Supervision (arXiv 2103.00020).
    """

    def __init__(
        self,
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        norm_eval: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len(layers) != _STAGES or not -1 <= frozen_stages <= _STAGES or not set(out_indices) <= set(range(_STAGES)):
            raise MTAdaptError(
                f"CLIPResNet: layers={tuple(layers)}, out_indices={tuple(out_indices)}, frozen_stages={frozen_stages}; "
                "there are four stages: give four numbers of layers, levels of 0 to 3, and -1 to 4 frozen stages"
            )
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval
        for name, module in _tower(layers, width).named_children():
            if name != "attnpool":
                self.add_module(name, module)
        self._freeze()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the chosen levels, finest first.

        Args:
            images: ``(N, 3, H, W)``.
        """
        x = images
        for number in range(1, 4):
            conv, norm, act = (getattr(self, f"{kind}{number}") for kind in ("conv", "bn", "act"))
            x = act(norm(conv(x)))
        x = self.avgpool(x)
        outs = []
        for level in range(_STAGES):
            x = getattr(self, f"layer{level + 1}")(x)
            if level in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def train(self, mode: bool = True) -> CLIPResNet:
        """Set the mode; frozen parts, and with ``norm_eval`` all batch norms, stay in evaluation mode."""
        super().train(mode)
        self._freeze()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def _freeze(self) -> None:
        if self.frozen_stages < 0:
            return
        stem = [f"{kind}{number}" for number in range(1, 4) for kind in ("conv", "bn")]
        for name in [*stem, *(f"layer{stage + 1}" for stage in range(self.frozen_stages))]:
            module = getattr(self, name)
            module.eval()
            module.requires_grad_(False)


def _tower(layers: Sequence[int], width: int) -> nn.Module:
    # Imported late, because it takes seconds.
    from open_clip.modified_resnet import ModifiedResNet

    return ModifiedResNet(list(layers), output_dim=1, heads=1, width=width)
