"""Freeze parts of a model for a stage of the training."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import nn

from mtadapt.errors import MTAdaptError


def modules_to_freeze(model: nn.Module, names: Sequence[str], exceptions: Sequence[str] = ()) -> list[nn.Module]:
    """Find the modules that freezing ``names`` reaches.

    A name freezes the module and everything inside it but adapters (modules whose ``is_adapter`` is true): those stay
    trainable in a frozen backbone, unless a name is theirs.

    Args:
        model: the model, not wrapped.
        names: dotted module names, e.g. ``backbone`` or ``tasks.det``; ``*`` stands for any part of a name.
        exceptions: names of modules that stay as they are, with everything inside them, wherever they are.

    Returns:
        Each module once; parameters and buffers that they own themselves are to be frozen, not those of the children.

    Raises:
        MTAdaptError: when a name is no module of the model, or an exception is not inside a frozen one.
    """
    chosen = [module for name in names for module in _find(model, name, "freeze")]
    named = {id(module) for module in chosen}
    reached: dict[int, nn.Module] = {}
    while chosen:
        module = chosen.pop()
        reached[id(module)] = module
        inside = (child for child in module.children() if id(child) in named or not getattr(child, "is_adapter", False))
        chosen += [child for child in inside if id(child) not in reached]
    for name in exceptions:
        kept = {id(inner): inner for module in _find(model, name, "freeze_except") for inner in module.modules()}
        if not kept.keys() & reached.keys():
            raise MTAdaptError(f"freeze_except: nothing in {name!r} is frozen by freeze={list(names)}; leave it out")
        for key in kept:
            reached.pop(key, None)
    return list(reached.values())


def _find(model: nn.Module, name: str, setting: str) -> list[nn.Module]:
    found = [module for path, module in model.named_modules() if path and fnmatchcase(path, name)]
    if not found:
        raise MTAdaptError(
            f"{setting}: {name!r} is no module of {type(model).__name__}; it has "
            f"{', '.join(path for path, _ in model.named_children())} and what is inside them, e.g. tasks.det"
        )
    return found


def trainable_without(model: nn.Module, frozen: Sequence[nn.Module]) -> int:
    """Number of elements of the parameters that train when ``frozen`` does not."""
    left_out = {id(parameter) for module in frozen for parameter in module.parameters(recurse=False)}
    kept = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return sum(parameter.numel() for parameter in kept if id(parameter) not in left_out)


def freeze(model: nn.Module, names: Sequence[str], exceptions: Sequence[str] = ()) -> list[nn.Module]:
    """Stop the gradients of the modules that :func:`modules_to_freeze` finds and put them into evaluation mode.

    Their parameters no longer require gradients, so no autograd graph goes through a part that has nothing trainable
    before it. The caller keeps the modules in evaluation mode: :meth:`torch.nn.Module.train` would change it again.

    Returns:
        The frozen modules.

    Raises:
        MTAdaptError: as :func:`modules_to_freeze`.
    """
    frozen = modules_to_freeze(model, names, exceptions)
    for module in frozen:
        module.training = False
        for parameter in module.parameters(recurse=False):
            parameter.requires_grad = False
    return frozen
