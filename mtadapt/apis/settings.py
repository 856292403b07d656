"""Limits of the settings of a call."""

from __future__ import annotations

from mtadapt.errors import MTAdaptError


def check_reading(batch_size: int, prefetch: int | None) -> None:
    """Refuse what no batches can be read with.

    Raises:
        MTAdaptError: for ``batch_size`` below 1 or ``prefetch`` below 0, which a queue would take for no limit.
    """
    if batch_size < 1:
        raise MTAdaptError(f"batch_size={batch_size}; write a number above 0")
    if prefetch is not None and prefetch < 0:
        raise MTAdaptError(f"prefetch={prefetch}; write a number from 0 (nothing is read ahead), or leave it out")


def check_threshold(pred_score_thr: float) -> None:
    """Refuse a lowest score that no score can be compared with.

    Raises:
        MTAdaptError: for a number outside of 0 to 1.
    """
    if not 0 <= pred_score_thr <= 1:
        raise MTAdaptError(f"pred_score_thr={pred_score_thr} (--score-thr); write a number from 0 to 1")
