"""The mixed-precision variant of an optimizer wrapper."""

from __future__ import annotations

from mtadapt.errors import MTAdaptError
from mtadapt.registry import OPTIM_WRAPPERS


def amp_variant(kind: str | type) -> str:
    """Name of the wrapper that does in mixed precision what ``kind`` does without.

    It is the registered wrapper whose name has ``Amp`` in front, e.g. ``AmpGradientSurgeryOptimWrapper``.

    Args:
        kind: ``type`` of an ``optim_wrapper`` config, with or without a scope.

    Raises:
        MTAdaptError: when there is no such wrapper.
    """
    scope, _, name = (kind if isinstance(kind, str) else kind.__name__).rpartition(".")
    variant = name if name.startswith("Amp") else f"Amp{name}"
    if OPTIM_WRAPPERS.get(variant) is None:
        raise MTAdaptError(
            f"--amp: optim_wrapper.type={kind!r} has no mixed-precision variant {variant}; train without"
        )
    return f"{scope}.{variant}" if scope else variant
