"""Checkpoints from which a training goes on as if it had never stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.dist import all_gather_object, get_rank, get_world_size, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.hooks.hook import DATA_BATCH
from mmengine.optim import OptimWrapperDict
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from mtadapt.datasets.samplers import HeterogeneousBatchSampler
from mtadapt.engine.checkpoints import remove_leftovers, write_atomically
from mtadapt.engine.optim import SourceAccumulationHook, parameter_groups, reorder_state
from mtadapt.engine.random_state import random_state, set_random_state
from mtadapt.errors import MTAdaptError
from mtadapt.registry import HOOKS


@HOOKS.register_module()
class ResumableCheckpointHook(CheckpointHook):
    """MMEngine's ``CheckpointHook`` with what an exact resume needs.

    - The checkpoint holds the random states of all processes and the position of a
      :class:`~mtadapt.datasets.HeterogeneousBatchSampler`. With that sampler ``n`` steps are ``k`` steps, a kill, a
      resume and ``n - k`` steps, to the bit on a CPU, with any number of workers. With stock samplers the order of the
      samples is MMEngine's, and the randomness of transforms is that of new workers.
    - The optimizer's state belongs to the names of the parameters, so that a config whose tasks stand in another order,
      as in one that MMEngine has dumped, resumes with the right one.
    - A local file is written to a temporary file, synced and renamed, and an old checkpoint is removed only when the
      new one is there (MMEngine removes an old ``save_best`` file first).
    - A validation leaves the random states of the training alone, so that it makes no difference whether it was run.
    - With gradient accumulation a checkpoint is written at the first update from the interval on, because gradients
      that wait for an update are not in it.

    Args:
        **kwargs: those of :class:`mmengine.hooks.CheckpointHook`.
    """

    def __init__(self, **kwargs: Any) -> None:
        if kwargs.get("backend_args") is None and "://" not in str(kwargs.get("out_dir") or ""):
            kwargs["backend_args"] = dict(backend="atomic")
        super().__init__(**kwargs)
        self._due = False
        self._state: dict | None = None
        self._random_state: dict | None = None
        self._random_state_of_training: dict | None = None

    def before_train(self, runner: Runner) -> None:
        """Find the folder, and remove what an interrupted save left there."""
        super().before_train(runner)
        if _sampler(runner) is not None and isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise MTAdaptError(
                "HeterogeneousBatchSampler has no end of an epoch; write train_cfg=dict(type='IterBasedTrainLoop', "
                "max_iters=...) and by_epoch=False in hooks and schedules"
            )
        _check_accumulation(runner)
        if is_main_process() and "://" not in self.out_dir:
            remove_leftovers(self.out_dir)
        if runner._resume and runner.iter >= runner.max_iters and runner.val_loop is not None:
            runner.logger.info("The training had come to its end; the last validation may not have: it runs again")
            runner.val_loop.run()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the sampler where the checkpoint was written; the random states follow when the first batch is there."""
        if not (isinstance(runner._train_loop, BaseLoop) and runner._resume):
            return
        state = checkpoint.get("training_state")
        if state is None:
            runner.logger.warning(
                "The checkpoint has no training_state (it was written by another hook): the training goes on with the "
                "right weights, but with other random numbers than without the interruption"
            )
            return
        self._reorder(runner, checkpoint, state.get("parameters"))
        sampler = _sampler(runner)
        if (sampler is None) != (state["sampler"] is None):
            raise MTAdaptError(
                "the checkpoint was written with another batch_sampler "
                f"({'a stock one' if state['sampler'] is None else 'HeterogeneousBatchSampler'}); resume with the same "
                "config, or start a new run with load_from"
            )
        if sampler is not None:
            sampler.load_state_dict(state["sampler"])
            runner.train_loop.fast_forward_on_resume = True
            runner.logger.info("The batch sampler goes on where the checkpoint was written; nothing has to be skipped")
        if len(state["random"]) == get_world_size():
            self._random_state = state["random"][get_rank()]
        else:
            runner.logger.warning(
                f"The checkpoint was written by {len(state['random'])} processes, now there are {get_world_size()}: "
                "random numbers start anew from the seed"
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None) -> None:
        """Before the first step, behind everything that draws random numbers at the start."""
        if self._random_state is not None:
            set_random_state(self._random_state)
            self._random_state = None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: DATA_BATCH = None, outputs: dict | None = None
    ) -> None:
        """Count the step, and save at the interval and at the end."""
        sampler = _sampler(runner)
        if sampler is not None:
            sampler.advance()
        if self.by_epoch:
            return
        last = self.is_last_train_iter(runner)
        self._due |= self.every_n_train_iters(runner, self.interval, self.save_begin) or (self.save_last and last)
        if self._due and (last or _updated(runner)):
            self._due = False
            runner.logger.info(f"Saving checkpoint at {runner.iter + 1} iterations")
            self._save_checkpoint(runner)

    def before_val(self, runner: Runner) -> None:
        """Keep the random states of the training."""
        self._random_state_of_training = random_state()

    def after_val(self, runner: Runner) -> None:
        """Put them back."""
        if self._random_state_of_training is not None:
            set_random_state(self._random_state_of_training)
            self._random_state_of_training = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the state of the training to a checkpoint with an optimizer."""
        if self._state is not None:
            checkpoint["training_state"] = self._state

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save, then remove the checkpoint that is one too many."""
        in_validation = self._random_state_of_training
        if in_validation is not None and not _updated(runner):
            # MMEngine saves again after a best validation; gradients that wait for an update would be lost.
            return
        name = self.filename_tmpl.format(step)
        if self.max_keep_ckpts > 0:
            kept = [*self.keep_ckpt_ids]
            kept += [] if kept[-1:] == [step] else [step]
            # With one too many: whoever resumes removes it, if this process is killed before it does.
            runner.message_hub.update_info("keep_ckpt_ids", list(kept))
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info("last_ckpt", self.last_ckpt)
        sampler = _sampler(runner)
        self._state = dict(
            random=all_gather_object(in_validation or random_state()),
            sampler=sampler.state_dict() if sampler is not None else None,
            parameters=parameter_groups(runner.optim_wrapper, runner.model),
        )
        runner.save_checkpoint(
            self.out_dir,
            name,
            self.file_client_args,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        self._state = None
        if is_main_process():
            write_atomically(Path(runner.work_dir, "last_checkpoint"), self.last_ckpt.encode())
        if self.max_keep_ckpts > 0:
            for old in kept[: -self.max_keep_ckpts]:
                self._remove(old)
            self.keep_ckpt_ids.extend(kept[len(self.keep_ckpt_ids) :])
            runner.message_hub.update_info("keep_ckpt_ids", list(self.keep_ckpt_ids))

    def _reorder(self, runner: Runner, checkpoint: dict, saved: dict | None) -> None:
        """Give the optimizer's state the order of the parameters here: a config may have its tasks in another one."""
        own = parameter_groups(runner.optim_wrapper, runner.model)
        if saved is None or own is None or "optimizer" not in checkpoint:
            return
        if reorder_state(checkpoint, saved, own):
            runner.logger.info("The config has its parameters in another order: the optimizer's state follows it")

    def _remove(self, step: int) -> None:
        path = self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))
        if not is_main_process():
            return
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):
            self.file_backend.rmtree(path)


def _sampler(runner: Runner) -> HeterogeneousBatchSampler | None:
    sampler = getattr(runner.train_dataloader, "batch_sampler", None)
    return sampler if isinstance(sampler, HeterogeneousBatchSampler) else None


def _check_accumulation(runner: Runner) -> None:
    sampler = _sampler(runner)
    if sampler is None or max(sampler.accumulate.values()) == 1:
        return
    if not any(isinstance(hook, SourceAccumulationHook) for hook in runner.hooks):
        raise MTAdaptError(
            f"HeterogeneousBatchSampler: accumulate={sampler.accumulate} does nothing without SourceAccumulationHook; "
            "add dict(type='SourceAccumulationHook') to custom_hooks"
        )


def _updated(runner: Runner) -> bool:
    """Whether this step updated the parameters."""
    wrapper = runner.optim_wrapper
    return all(
        part.should_update() for part in (wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper])
    )
