"""A loss or a gradient that is not finite changes nothing, on no process."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, get_rank
from mmengine.hooks import Hook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.optim import ApexOptimWrapper, OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.errors import MTAdaptError
from mtadapt.registry import HOOKS

#: So many skipped steps are kept in the file, the newest ones.
KEPT_STEPS = 1000
FILE_NAME = "non_finite.json"


@HOOKS.register_module()
class NonFiniteHook(Hook):
    """Leave out, on all processes, a step whose loss or gradient is not finite on any of them.

    Before each step of the optimizer the processes agree on one flag. If it is set, no process steps: the weights,
    the optimizer's state and the buffers of the model (running statistics of batch norm, sums of loss balancers) are
    those of before the step, to the bit. With gradient accumulation the whole window is left out. The iteration and
    the learning rate schedule go on.

    Each skip is a warning with the names of the files, and the scalar ``non_finite_skips`` in the log. The batches of
    all processes are written to ``non_finite.json`` in the work directory: iteration, rank, file and source of each
    sample, and the losses by name. If all losses are finite and only the gradient is not, every batch of the window is
    named, because the gradient that a process sees is the mean over all of them. The file holds the newest 1000 skips
    of this run; the first skip of a later run in the same directory replaces it.

    Ours: the limit is on skips in a row, as it is for divergence that it stops a run, while a damaged image that comes
    back every epoch does not. The count starts again at 0 when a run is resumed.

    Under automatic mixed precision a gradient that overflows by the loss scale is the scaler's business: it leaves out
    the step and lowers the scale, and nothing is counted, unless the scale was 1 or less, or is static. A loss that is
    not finite is counted, and does not lower the scale.

    Limitations: state that a model keeps outside of its parameters and buffers is not restored. DeepSpeed has its own
    check of overflow, and the hook does nothing there.

    Args:
        max_skips: so many steps in a row may be left out; at one more the run stops on all processes.

    Raises:
        MTAdaptError: for a negative ``max_skips`` or an optimizer wrapper that cannot be guarded, and in training when
            more steps than ``max_skips`` follow each other that are not finite.
    """

    def __init__(self, max_skips: int = 10) -> None:
        if isinstance(max_skips, bool) or not isinstance(max_skips, int) or max_skips < 0:
            raise MTAdaptError(f"NonFiniteHook: max_skips is {max_skips!r}; give an integer of 0 or more")
        self.max_skips = max_skips
        self.skips = 0
        self.skips_in_a_row = 0
        self._release: Callable[[], None] = lambda: None
        self._buffers: _BufferCopy | None = None
        self._loss_is_bad = torch.tensor(False)
        self._window: list[dict] = []
        self._stepped = False
        self._reason = ""
        self._steps: deque[dict] = deque(maxlen=KEPT_STEPS)

    def before_train(self, runner: Runner) -> None:
        """Put the check in front of the optimizer wrapper's step."""
        self._release()
        self._window, self._stepped, self._loss_is_bad = [], False, torch.tensor(False)
        wrapper = runner.optim_wrapper
        if isinstance(wrapper, OptimWrapperDict | ApexOptimWrapper):
            raise MTAdaptError(
                f"NonFiniteHook: optim_wrapper is a {type(wrapper).__name__}, whose steps cannot be left out; use one "
                "OptimWrapper or AmpOptimWrapper, or take the hook out of custom_hooks"
            )
        if not isinstance(wrapper, OptimWrapper):
            runner.logger.warning(f"NonFiniteHook does nothing with optim_wrapper {type(wrapper).__name__}")
            return
        self._buffers = _BufferCopy(runner.model)
        self._release = self._guard(wrapper)

    def after_train(self, runner: Runner) -> None:
        """Leave the optimizer wrapper as it was."""
        self._release()

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Keep the buffers at the start of each accumulation window."""
        if self._buffers is not None and not self._window:
            self._buffers.save()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Report a skip, and stop at the one that is too many."""
        if self._buffers is None:
            return
        self._window.append(_describe(runner.iter + 1, data_batch, outputs))
        if not self._stepped:
            return
        window, self._window, self._stepped = self._window, [], False
        if self._reason:
            self._report(runner, window)

    def _guard(self, wrapper: OptimWrapper) -> Callable[[], None]:
        """Wrap ``update_params`` and ``step`` of this wrapper; return what undoes it."""
        own = {name: vars(wrapper)[name] for name in ("update_params", "step") if name in vars(wrapper)}
        plain_update, plain_step = wrapper.update_params, wrapper.step

        @wraps(plain_update)
        def update_params(loss: Tensor, *args: Any, **kwargs: Any) -> None:
            self._loss_is_bad = self._loss_is_bad.to(loss.device) | ~torch.isfinite(loss.detach()).all()
            plain_update(loss, *args, **kwargs)

        @wraps(plain_step)  # with it goes the mark by which MMEngine's schedulers know a step that counts
        def step(**kwargs: Any) -> None:
            self._step(wrapper, plain_step, kwargs)

        wrapper.update_params, wrapper.step = update_params, step

        def release() -> None:
            for name in ("update_params", "step"):
                delattr(wrapper, name)
            vars(wrapper).update(own)
            self._buffers, self._release = None, lambda: None

        return release

    def _step(self, wrapper: OptimWrapper, plain_step: Callable[..., None], kwargs: dict) -> None:
        """Step, or leave out the step and everything that the forward passes before it have changed."""
        bad_loss, bad_gradient = self._agree(wrapper)
        self._stepped, self._reason = True, ""
        self._loss_is_bad = torch.tensor(False)
        if bad_loss or bad_gradient:
            if not bad_loss and self._is_left_to_scaler(wrapper, plain_step, kwargs):
                return
            self._reason = "loss" if bad_loss else "gradient"
            self.skips += 1
            self.skips_in_a_row += 1
            assert self._buffers is not None
            self._buffers.restore()
        else:
            self.skips_in_a_row = 0
            plain_step(**kwargs)

    def _agree(self, wrapper: OptimWrapper) -> tuple[bool, bool]:
        """Whether the loss, and whether the gradient, is not finite on any process; the same on all of them."""
        parameters = [parameter for group in wrapper.optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        gradients = [gradient.coalesce().values() if gradient.is_sparse else gradient for gradient in gradients]
        device = self._loss_is_bad.device
        # One number a gradient, in one kernel. The square of a finite gradient can overflow, so the rare step that is
        # suspicious is looked at again element by element.
        norms = [norm.to(device, torch.float32) for norm in torch._foreach_norm(gradients)] if gradients else []
        suspicious = ~torch.isfinite(torch.stack(norms)).all() if norms else torch.tensor(False, device=device)
        bad_loss, bad_gradient = self._any_process(self._loss_is_bad, suspicious)
        if bad_gradient:
            bad = torch.tensor(any(not bool(torch.isfinite(gradient).all()) for gradient in gradients), device=device)
            bad_loss, bad_gradient = self._any_process(self._loss_is_bad, bad)
        return bad_loss, bad_gradient

    @staticmethod
    def _any_process(*flags: Tensor) -> list[bool]:
        both = torch.stack(flags).to(torch.float32)
        all_reduce(both, op="max")
        return [flag > 0 for flag in both.tolist()]

    @staticmethod
    def _is_left_to_scaler(wrapper: OptimWrapper, plain_step: Callable[..., None], kwargs: dict) -> bool:
        """Let a gradient scaler, if there is one, leave out the step; whether that was its ordinary business."""
        scaler = getattr(wrapper, "loss_scaler", None)
        if scaler is None or not scaler.is_enabled():
            return False
        scale = scaler.get_scale()
        plain_step(**kwargs)
        return scale > 1 and scaler.get_scale() < scale

    def _report(self, runner: Runner, window: list[dict]) -> None:
        """Gather the batches, write the file and the warning; stop when there were too many skips."""
        window = [_as_json(batch) for batch in window]
        batches = [batch for part in all_gather_object(window) for batch in part]
        bad = [batch for batch in batches if any("loss" in name and _is_bad(x) for name, x in batch["losses"].items())]
        self._steps.append(dict(iteration=runner.iter + 1, reason=self._reason, batches=bad or batches))
        path = Path(runner.work_dir, FILE_NAME)
        if get_rank() == 0:
            try:
                content = dict(max_skips=self.max_skips, skips=self.skips, steps=[*self._steps])
                write_atomically(path, json.dumps(content, indent=1, allow_nan=False).encode())
            except OSError as error:
                runner.logger.error(f"NonFiniteHook: {path}: {error}; the batches are in the log alone")
        barrier()  # a process that ends makes the launcher end the others, so the file comes first
        runner.message_hub.update_scalar("train/non_finite_skips", self.skips)
        what = f"the {self._reason} was not finite, {_files(bad or batches)}"
        if self.skips_in_a_row > self.max_skips:
            raise MTAdaptError(
                f"NonFiniteHook: {self.skips_in_a_row} steps in a row were not finite (max_skips={self.max_skips}); "
                f"last, at iteration {runner.iter + 1}, {what}; {_remedy(runner.model, path)}"
            )
        runner.logger.warning(
            f"Step of iteration {runner.iter + 1} skipped ({self.skips_in_a_row} in a row, at most {self.max_skips}; "
            f"{self.skips} in all): {what}; see {path}"
        )


class _BufferCopy:
    """A copy of a model's buffers, made anew before each step.

    Args:
        model: the model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._places = [
            (module._buffers, name)
            for module in model.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        ]
        self._buffers: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._groups: list[tuple[list[Tensor], list[Tensor]]] = []

    @torch.no_grad()
    def save(self) -> None:
        """Copy the buffers."""
        buffers = [self._at(place) for place in self._places]
        if len(self._buffers) == len(buffers) and all(
            old is new and copy.shape == new.shape and copy.device == new.device
            for old, new, copy in zip(self._buffers, buffers, self._copies, strict=True)
        ):
            for copies, originals in self._groups:
                torch._foreach_copy_(copies, originals)
            return
        self._buffers, self._copies = buffers, [buffer.clone() for buffer in buffers]
        groups: dict[tuple, tuple[list[Tensor], list[Tensor]]] = {}
        for buffer, copy in zip(buffers, self._copies, strict=True):
            copies, originals = groups.setdefault((buffer.device, buffer.dtype), ([], []))
            copies.append(copy)
            originals.append(buffer)
        self._groups = [*groups.values()]

    @torch.no_grad()
    def restore(self) -> None:
        """Give the buffers back the values, and the model the buffers, of the last copy."""
        for (buffers, name), buffer, copy in zip(self._places, self._buffers, self._copies, strict=True):
            buffer.copy_(copy)
            buffers[name] = buffer

    @staticmethod
    def _at(place: tuple[dict[str, Tensor | None], str]) -> Tensor:
        buffer = place[0][place[1]]
        assert buffer is not None, place[1]
        return buffer


def _describe(iteration: int, data_batch: DATA_BATCH, outputs: dict | None) -> dict:
    """What is kept of a batch until the end of its window."""
    samples: Sequence = data_batch.get("data_samples") or () if isinstance(data_batch, dict) else ()
    samples = [sample for sample in samples if hasattr(sample, "get")]
    named = ("img_path", "source")
    return dict(
        iteration=iteration,
        samples=[{key: str(sample.get(key)) for key in named if sample.get(key)} for sample in samples],
        losses={key: value.detach() if isinstance(value, Tensor) else value for key, value in (outputs or {}).items()},
    )


def _as_json(batch: dict) -> dict:
    """A batch in values that JSON knows: a number that is not finite becomes its name."""
    numbers = {name: float(x) for name, x in batch["losses"].items() if not isinstance(x, Tensor) or x.numel() == 1}
    losses = {name: number if math.isfinite(number) else str(number) for name, number in numbers.items()}
    return dict(rank=get_rank(), iteration=batch["iteration"], samples=batch["samples"], losses=losses)


def _is_bad(number: float | str) -> bool:
    return isinstance(number, str)


def _files(batches: list[dict], most: int = 4) -> str:
    """The ranks and the first files of some batches, in words."""
    ranks = ", ".join(str(rank) for rank in sorted({batch["rank"] for batch in batches}))
    names = [sample["img_path"] for batch in batches for sample in batch["samples"] if "img_path" in sample]
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"rank {ranks}, files: {', '.join(names[:most]) or 'unknown'}{more}"


def _remedy(model: nn.Module, path: Path) -> str:
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            return (
                f"the weights themselves are not finite, e.g. {name}; start from another checkpoint or initialisation"
            )
    return f"look at the files named in {path}, or lower the learning rate"
