"""Gradient accumulation over windows that the batches name: another length for each source."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from torch import Tensor

from mtadapt.datasets.samplers import HeterogeneousBatchSampler
from mtadapt.errors import MTAdaptError
from mtadapt.registry import HOOKS, OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class SourceAccumulationOptimWrapper(OptimWrapper):
    """MMEngine's wrapper with accumulation windows of changing length.

    :class:`SourceAccumulationHook` tells it before each iteration which place the batch has in its window. The loss is
    divided by the window's length, gradients are exchanged between processes and the parameters updated at its end.
    Without windows it is MMEngine's own wrapper.

    Ours: a window that ``max_iters`` cuts short is averaged over the iterations that it has, as MMEngine does with
    ``accumulative_counts``.

    Args:
        optimizer: what updates the parameters.
        accumulative_counts: as in :class:`mmengine.optim.OptimWrapper`; 1 when the batches name longer windows.
        clip_grad: as in :class:`mmengine.optim.OptimWrapper`.
    """

    _inner_count: int
    _place = 0
    _length: int | None = None

    def set_window(self, place: int, length: int) -> None:
        """Say where in its window the next iteration is.

        Args:
            place: its number in the window, from 0.
            length: iterations of the window.

        Raises:
            MTAdaptError: when ``accumulative_counts`` is set too, or the window does not go on where the last
                iteration has left it.
        """
        if self._accumulative_counts > 1:
            if length == 1:
                return
            raise MTAdaptError(
                f"optim_wrapper.accumulative_counts={self._accumulative_counts}: the sources set their own "
                "accumulation; leave accumulative_counts out, or accumulate in the batch sampler"
            )
        expected = 0 if self._length is None or self._place + 1 == self._length else self._place + 1
        if not 0 <= place < length or place != expected:
            raise MTAdaptError(
                f"accumulation: iteration {place} of {length} where {expected} was due; resume from a checkpoint that "
                "was written at the end of a window"
            )
        left = self._max_counts - self._inner_count if self._max_counts >= 0 else length
        self._place, self._length = place, min(length, place + left)

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Divide the loss by the length of its window."""
        return super().scale_loss(loss) if self._length is None else loss / self._length

    def should_update(self) -> bool:
        """Whether the iteration that has just run is the last one of its window."""
        return super().should_update() if self._length is None else self._place + 1 == self._length

    def should_sync(self) -> bool:
        """Whether the iteration that is about to run is the last one of its window."""
        return super().should_sync() if self._length is None else self._place + 1 == self._length


@OPTIM_WRAPPERS.register_module()
class AmpSourceAccumulationOptimWrapper(SourceAccumulationOptimWrapper, AmpOptimWrapper):
    """:class:`SourceAccumulationOptimWrapper` in mixed precision, with the settings of MMEngine's AmpOptimWrapper."""


@HOOKS.register_module()
class SourceAccumulationHook(Hook):
    """Tell the optimizer wrapper the accumulation window of every batch.

    The batch sampler draws the same source for a whole window and writes ``accumulation=(place, length)`` in the
    metainfo of each sample. A batch whose samples have no such entry is a window of its own. With a batch sampler that
    does not accumulate the hook does nothing.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._active = True

    def before_train(self, runner: Runner) -> None:
        """Check the wrapper, and tell it the run's length: with FlexibleRunner nobody else does.

        Raises:
            MTAdaptError: when the batch sampler accumulates and the wrapper knows no windows.
        """
        sampler = getattr(runner.train_dataloader, "batch_sampler", None)
        if isinstance(sampler, HeterogeneousBatchSampler):
            self._active = max(sampler.accumulate.values()) > 1
            if self._active:
                _check_wrapper(runner)
        if self._active and isinstance(runner.optim_wrapper, SourceAccumulationOptimWrapper):
            runner.optim_wrapper.initialize_count_status(runner.model, runner.iter, runner.max_iters)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Read the window from the batch.

        Raises:
            MTAdaptError: when the samples of the batch are of different windows, or the wrapper knows none.
        """
        if not self._active:
            return
        samples = data_batch["data_samples"] if isinstance(data_batch, dict) else ()
        windows = {tuple(sample.metainfo.get("accumulation", (0, 1))) for sample in samples} or {(0, 1)}
        if len(windows) > 1:
            raise MTAdaptError(
                f"accumulation: one batch holds samples of the windows {sorted(windows)}; set the same accumulation "
                "for all sources that share a batch"
            )
        place, length = windows.pop()
        if length > 1:
            _check_wrapper(runner)
        if isinstance(runner.optim_wrapper, SourceAccumulationOptimWrapper):
            runner.optim_wrapper.set_window(place, length)


def _check_wrapper(runner: Runner) -> None:
    if not isinstance(runner.optim_wrapper, SourceAccumulationOptimWrapper):
        raise MTAdaptError(
            f"SourceAccumulationHook: optim_wrapper.type={type(runner.optim_wrapper).__name__!r} knows no windows; "
            "use SourceAccumulationOptimWrapper or GradientSurgeryOptimWrapper (with --amp their Amp variants)"
        )
