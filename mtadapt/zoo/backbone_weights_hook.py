"""A model of any library starts from a pre-trained backbone."""

from __future__ import annotations

import json
import os
from pathlib import Path

from mmengine.dist import barrier, get_rank, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import FlexibleRunner, Runner
from torch import nn

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.errors import MTAdaptError
from mtadapt.models.pretraining import HeuristicPretrainer
from mtadapt.registry import HOOKS
from mtadapt.zoo.files import fetch
from mtadapt.zoo.loading import MIN_MATCH, load_backbone

#: Name of the file with the report, in the folder of the training.
WEIGHTS = "backbone_weights.json"


@HOOKS.register_module()
class BackboneWeightsHook(Hook):
    """Load the backbone of the model from a checkpoint, see :func:`mtadapt.zoo.load_backbone`.

    It does what ``init_cfg=dict(type='Pretrained', ...)`` of the backbone cannot: Swin Transformers of mmdet and mmseg
    read that setting themselves and fail at the index of relative positions when the window differs, mmpretrain's
    needs a function that SciPy has removed, and a wrong prefix leaves a random backbone and a line in the log. Here
    one setting serves the three libraries, and what does not match is an error.

    Ours: it loads right before the first step, after MMEngine has initialised the model, which it does later than
    ``before_run``. A training that resumes, or starts from a whole model (``load_from``), has its weights by then and
    keeps them. Validation and tests alone never read the file, so it may be gone. An average of the weights
    (``EMAHook``) starts as a copy after the first step. What came from the file is written to
    ``backbone_weights.json`` in the folder of the training.

    Args:
        checkpoint: a checkpoint, or the folder of a training; by default the field ``checkpoint`` of the config, so
            that ``--cfg-options checkpoint=...`` reaches it. None there trains from random weights.
        prefix: what stands before the backbone's names in the file, found by default.
        min_match: share of the backbone that has to be in the file.
        sha256: of the file, in full or its first digits.
        trust_checkpoint: run the code that the file may hold.

    Raises:
        MTAdaptError: at the start of the training, when there is no checkpoint, it is of another backbone, or the
            weights are spread over processes.
    """

    priority = "VERY_HIGH"

    def __init__(
        self,
        checkpoint: str | None = None,
        prefix: str | None = None,
        min_match: float = MIN_MATCH,
        sha256: str | None = None,
        trust_checkpoint: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.min_match = min_match
        self.sha256 = sha256
        self.trust_checkpoint = trust_checkpoint

    def before_train(self, runner: Runner) -> None:
        """Load the weights, unless the whole model has been loaded."""
        checkpoint = self._source(runner)
        if runner._has_loaded:
            runner.logger.info(f"{checkpoint}: not loaded, the whole model comes from a checkpoint")
        elif checkpoint is None:
            runner.logger.info("checkpoint=None: the backbone starts as the config initialises it")
        else:
            model = _whole_model(runner)
            self._download(checkpoint)
            report = load_backbone(
                checkpoint,
                _backbone(model),
                prefix=self.prefix,
                min_match=self.min_match,
                sha256=self.sha256,
                trust_checkpoint=self.trust_checkpoint,
            )
            if is_main_process():
                write_atomically(
                    Path(runner.work_dir) / WEIGHTS, (json.dumps(report.as_dict(), indent=1) + "\n").encode()
                )
            if isinstance(model, HeuristicPretrainer):
                model.restart_momentum_encoder()

    def _download(self, checkpoint: str) -> None:
        """The first process of a machine downloads, the others wait for it."""
        if "://" in str(checkpoint):
            try:
                if int(os.environ.get("LOCAL_RANK", get_rank())) == 0:
                    fetch(checkpoint, self.sha256)
            finally:
                barrier()

    def _source(self, runner: Runner) -> str | None:
        if self.checkpoint is not None:
            return self.checkpoint
        if "checkpoint" not in runner.cfg:
            raise MTAdaptError("BackboneWeightsHook: give it a checkpoint, or the config a field checkpoint='FILE'")
        return runner.cfg.checkpoint


def _whole_model(runner: Runner) -> nn.Module:
    if isinstance(runner, FlexibleRunner) and type(runner.strategy).__name__ not in _WHOLE:
        raise MTAdaptError(
            f"BackboneWeightsHook: {type(runner.strategy).__name__} spreads the weights over processes; use "
            "runner_type='Runner' or the strategy 'DDPStrategy'"
        )
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _backbone(model: nn.Module) -> nn.Module:
    backbone = getattr(model, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise MTAdaptError(f"BackboneWeightsHook: {type(model).__name__} has no backbone; leave the hook out")
    return backbone


# Strategies that leave the weights of the model in one piece.
_WHOLE = ("SingleDeviceStrategy", "DDPStrategy")
