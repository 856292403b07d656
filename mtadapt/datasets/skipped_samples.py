"""Go on with the next sample where one cannot be read."""

from __future__ import annotations

import logging
from typing import Any

import torch
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mtadapt.errors import MTAdaptError


class SkippedSamples(BaseDataset):
    """A dataset that raises, or skips, samples whose pipeline raises an :class:`~mtadapt.errors.MTAdaptError`.

    Args:
        *args: those of :class:`mmengine.dataset.BaseDataset`.
        on_error: ``raise`` or ``skip``. With ``skip`` a sample that cannot be read is replaced by the next one, and
            counted in :attr:`num_skipped`.
        **kwargs: those of :class:`mmengine.dataset.BaseDataset`.

    Raises:
        MTAdaptError: for another ``on_error``.
    """

    def __init__(self, *args: Any, on_error: str = "raise", **kwargs: Any) -> None:
        if on_error not in ("raise", "skip"):
            raise MTAdaptError(f"{type(self).__name__}: on_error is {on_error!r}; use 'raise' or 'skip'")
        self.on_error = on_error
        # In shared memory, because samples are skipped in the workers of the data loader and reported by the parent.
        self._skipped = torch.zeros(1, dtype=torch.int64).share_memory_()
        super().__init__(*args, **kwargs)

    @property
    def num_skipped(self) -> int:
        """How many times a sample was replaced because it could not be read, over all workers."""
        return int(self._skipped)

    def prepare_data(self, idx: int) -> dict | None:
        """Run the pipeline on image ``idx``; None when the sample is skipped."""
        try:
            return super().prepare_data(idx)
        except MTAdaptError as error:
            if self.on_error == "raise":
                raise
            self._skipped += 1
            if self.num_skipped <= 10:
                print_log(f"sample skipped: {error}", logger="current", level=logging.WARNING)
            return None

    def __getitem__(self, idx: int) -> dict:
        """Return sample ``idx``, or the next one that can be used."""
        if not self._fully_initialized:
            self.full_init()
        for offset in range(min(self.max_refetch + 1, len(self))):
            data = self.prepare_data((idx + offset) % len(self))
            if data is not None:
                return data
        raise MTAdaptError(f"{self.origin}: no sample from number {idx} on could be used; see the warnings above")

    @property
    def origin(self) -> str:
        """Where the samples come from, for messages."""
        return str(self.data_root)
