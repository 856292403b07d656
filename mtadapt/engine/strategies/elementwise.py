"""Optimizers whose step depends on whole parameters do not work on pieces of them."""

from __future__ import annotations

from collections.abc import Mapping

from mtadapt.errors import MTAdaptError

#: They take norms or factors of a whole parameter, or of all of them.
WHOLE_PARAMETERS = ("Lamb", "LARS", "Adafactor", "Muon", "LBFGS")


def check_elementwise(optim_wrapper: Mapping, strategy: str) -> None:
    """Check the optimizer of a config.

    Args:
        optim_wrapper: the config.
        strategy: what gives each process a part of the parameters.

    Raises:
        MTAdaptError: when a part gives another step than the whole.
    """
    kind = (optim_wrapper.get("optimizer") or {}).get("type", "")
    name = str(kind if isinstance(kind, str) else kind.__name__)
    if name.rpartition(".")[2].lower() in {known.lower() for known in WHOLE_PARAMETERS}:
        raise MTAdaptError(
            f"optim_wrapper.optimizer.type={name!r} takes norms of whole parameters, of which {strategy} gives each "
            "process a part; use AdamW or SGD, or DDP"
        )
