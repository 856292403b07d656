"""A checkpoint that does not fit the model is refused, not loaded in part."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner

from mtadapt.engine.strategies.outline import plain_model
from mtadapt.errors import MTAdaptError
from mtadapt.models.pretraining import HeuristicPretrainer
from mtadapt.registry import HOOKS


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Compare a checkpoint with the model before it is loaded.

    MMEngine loads what matches and logs the rest. Here a test or a resumed training needs every entry of the model; a
    training that starts from a checkpoint (``load_from``) may leave parts new, and logs how many; of a pre-training the
    backbone may not be among them.

    Raises:
        MTAdaptError: when entries are missing or of another shape, or nothing matches.
    """

    priority = "VERY_HIGH"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare the names and the shapes."""
        model = plain_model(runner)
        own = model.state_dict()
        given = checkpoint.get("state_dict", checkpoint)
        wrong = [name for name, value in own.items() if name not in given or given[name].shape != value.shape]
        summary = f"{len(own) - len(wrong)} of the model's {len(own)} entries are in the checkpoint"
        training = isinstance(runner._train_loop, BaseLoop) and not runner._resume
        new = [name for name in wrong if isinstance(model, HeuristicPretrainer) and _has_to_be_there(name)]
        if wrong and (new or not training or len(wrong) == len(own)):
            source = runner._load_from or runner.work_dir
            first = (new or wrong)[0]
            shapes = f" {tuple(given[first].shape)} for {tuple(own[first].shape)}" if first in given else ""
            raise MTAdaptError(f"{source}: {summary}, first without a match: {first}{shapes}; use its own config")
        runner.logger.info(f"{summary}, of the checkpoint's {len(given)}")


def _has_to_be_there(name: str) -> bool:
    """Whether an entry of a pre-training's backbone can come from nowhere but the checkpoint."""
    # Positions are resized for other windows and image sizes, and a supervised backbone has no mask token.
    made = ("mask_token", "relative_position_bias_table", "relative_position_index", "pos_embed")
    return name.startswith("backbone.") and not name.endswith(made)
