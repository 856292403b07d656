"""The endless order of one source's samples, at any position without replaying what came before."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtadapt.datasets.samplers.counter_rng import key_of, numbers, permute

#: Draws that are computed at a time, and kept.
_WINDOW = 4096
#: Batches among which samples are exchanged to make batches of one group.
_BATCHES = 64


class SourceOrder:
    """Sample and random seed of every draw of a source.

    Draw ``d`` is sample ``d % size`` of pass ``d // size``, each pass in a shuffled order of its own. Where samples
    have groups (of aspect ratio), the draws of 64 batches at a time, or of a pass, are put in an order in which only
    the batch at the border between two groups mixes them, and the batches are shuffled. Ours; mmdet keeps a buffer a
    group instead, whose content a checkpoint would have to hold.

    Args:
        name: the source's name, part of the random keys, so that the order does not depend on the other sources.
        size: number of samples.
        seed: the same on all processes.
        batch_size: samples of one step over all processes.
        groups: gives the group ``(n,)`` of samples ``(n,)``; None when there are none.
    """

    def __init__(
        self,
        name: str,
        size: int,
        seed: int,
        batch_size: int,
        groups: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.size = size
        self._name, self._seed, self._batch_size, self._groups = name, seed, batch_size, groups
        self._sample_key = key_of(seed, name, "sample")
        self.grouped = groups is not None
        # Not longer than a pass, so that a pass stays one.
        self.window = batch_size * max(1, min(_BATCHES, size // batch_size)) if groups is not None else _WINDOW
        self._number = -1
        self._draws = np.empty(0, np.int64)
        self._indices = np.empty(0, np.int64)

    def draws(self, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Samples and seeds of ``count`` draws.

        Args:
            start: number of the first draw.
            count: number of draws.

        Returns:
            ``(count,)`` int64 sample indices and ``(count,)`` uint64 random seeds.
        """
        indices, draws = [], []
        while count > 0:
            number, offset = divmod(start, self.window)
            self._load(number)
            part = slice(offset, offset + count)
            indices.append(self._indices[part])
            draws.append(self._draws[part])
            start += len(draws[-1])
            count -= len(draws[-1])
        return np.concatenate(indices), numbers(self._sample_key, np.concatenate(draws))

    def _load(self, number: int) -> None:
        """Compute the window with this number, unless it is the one that is kept."""
        if number == self._number:
            return
        draws = np.arange(number * self.window, (number + 1) * self.window)
        passes, positions = np.divmod(draws, self.size)
        indices = np.empty_like(draws)
        for one in range(passes[0], passes[-1] + 1):
            rows = passes == one
            indices[rows] = permute(key_of(self._seed, self._name, one), self.size, positions[rows])
        if self._groups is not None:
            order = self._arrange(number, self._groups(indices))
            draws, indices = draws[order], indices[order]
        self._number, self._draws, self._indices = number, draws, indices

    def _arrange(self, number: int, groups: np.ndarray) -> np.ndarray:
        """Positions in the window, sorted by group and then shuffled by batches."""
        batches = np.argsort(groups, kind="stable").reshape(-1, self._batch_size)
        order = permute(key_of(self._seed, self._name, "batches", number), len(batches), np.arange(len(batches)))
        return batches[order].ravel()
