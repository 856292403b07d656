"""Names of ResNets: those of torchvision are also mmpretrain's, mmdet's and mmseg's."""

from __future__ import annotations

from mtadapt.zoo.formats.naming import Naming, Rule, same

_STAGES = same("layer{n}.{rest}")
# torch.nn.Sequential over the children of torchvision's ResNet.
_CHILDREN = (
    Rule("0.{p}", "conv1.{p}"),
    Rule("1.{p}", "bn1.{p}"),
    *(Rule(f"{stage + 3}.{{rest}}", f"layer{stage}.{{rest}}") for stage in range(1, 5)),
)
# Three convolutions in the place of the first one: by number in mmdet and mmseg, as three modules in mmpretrain.
_BY_NUMBER = (
    *(Rule(f"conv1.{number}.{{p}}", f"stem.{number}.{{p}}") for number in (0, 1, 3, 4, 6)),
    Rule("bn1.{p}", "stem.7.{p}"),
)
_AS_MODULES = (
    *(Rule(f"conv1.{3 * number}.{{p}}", f"stem.{number}.conv.{{p}}") for number in range(3)),
    *(Rule(f"conv1.{3 * number + 1}.{{p}}", f"stem.{number}.bn.{{p}}") for number in range(2)),
    Rule("bn1.{p}", "stem.2.bn.{p}"),
)
# timm has an average pooling in every shortcut, mmpretrain not where the stride is 1.
_FIRST_SHORTCUT = tuple(
    Rule(f"layer1.0.downsample.{number}.{{p}}", f"layer1.0.downsample.{number - 1}.{{p}}") for number in (1, 2)
)

NAMINGS = (
    Naming("torchvision names", (*same("conv1.{p}", "bn1.{p}"), *_STAGES), library="torchvision timm", family="ResNet"),
    Naming("CLIP's names", (*same("conv{n}.{p}", "bn{n}.{p}"), *_STAGES), family="CLIPResNet"),
    Naming("torchvision's children by number", _CHILDREN, family="ResNet"),
    *(
        Naming(title, (*stem, *shortcut, *_STAGES), family=family)
        for title, shortcut, family in (
            ("timm names with a deep stem", (), "ResNetV1c"),
            ("timm names of ResNet-D", _FIRST_SHORTCUT, "ResNetV1d"),
        )
        for stem in (_BY_NUMBER, _AS_MODULES)
    ),
)
