"""Prompts that do not name the classes of the dataset are refused, not trained."""

from __future__ import annotations

from collections.abc import Mapping

from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mtadapt.errors import MTAdaptError
from mtadapt.registry import HOOKS


@HOOKS.register_module()
class PromptMatchHook(Hook):
    """Compare the classes of the model's prompts with those of the training data, name by name and in order.

    The score map of a class is compared with its label, so a table in another order would align pixels with the wrong
    words and nothing else would tell.

    Raises:
        MTAdaptError: when they differ.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare before the first step."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        prompts = getattr(getattr(model, "adapter", None), "classes", {})
        metainfo = getattr(runner.train_dataloader.dataset, "metainfo", None)
        tasks = metainfo.get("tasks", {}) if isinstance(metainfo, Mapping) else {}
        for task, names in prompts.items():
            classes = tuple(tasks.get(task, {}).get("classes", names))
            for number, (name, expected) in enumerate(zip(names, classes, strict=False)):
                if name != expected:
                    raise MTAdaptError(
                        f"prompts[{task!r}][{number}] is {name!r}, the dataset's class is {expected!r}; name the "
                        "classes as the dataset does, and put other words for them into synonyms"
                    )
            if len(names) != len(classes):
                raise MTAdaptError(f"prompts[{task!r}] has {len(names)} classes, the dataset {len(classes)}")
