"""Adapters inside a stock backbone, whose own entries keep their names."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from mmengine.model import ModuleDict
from torch import nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.adapters.lora import InsertedAdapter
from mtadapt.registry import MODELS


@MODELS.register_module(name="AdaptedBackbone")
def adapt_backbone(backbone: dict, adapters: Sequence[dict], pretrained: str | None = None) -> nn.Module:
    """Build a stock backbone and put adapters on modules of it.

    In a config: ``backbone=dict(type='mtadapt.AdaptedBackbone', backbone=dict(type='mmdet.SwinTransformer', ...),
    adapters=[dict(type='LoRA', targets=['*.attn.w_msa.qkv'], rank=8)])``.

    The stock backbone itself is returned. Its ``adapters`` hold the new parameters, and forward hooks on the targets
    apply them. So every entry of the backbone keeps its name, and public checkpoints, ``init_cfg``, layer-wise learning
    rates and ``frozen_stages``, which reaches no adapter, work as before. That is why neither ``peft`` nor mmpretrain's
    ``LoRAModel`` is used here: ``peft`` renames the entries of the layers that it wraps and freezes all others (here
    the stages of the training freeze), and ``LoRAModel`` drops the backbone's weights from the checkpoint.

    Args:
        backbone: config of any backbone, e.g. the Swin or ViT of mmdet, mmseg or mmpretrain.
        adapters: each with ``type`` (``LoRA``, ``TokenBottleneck``, or a registered
            :class:`~mtadapt.models.adapters.InsertedAdapter`), ``targets``, names of modules in the backbone where
            ``*`` stands for any characters, and the settings of the type.
        pretrained: mmseg's setting for the backbone, which it writes here.

    Returns:
        The backbone.

    Raises:
        MTAdaptError: for an adapter or targets that do not fit the backbone, and at the first forward pass for a
            target that is not called (a layer of which only the weight is used).
    """
    if pretrained is not None:
        backbone = {**backbone, "pretrained": pretrained}
    model = MODELS.build(backbone)
    modules = {name: module for name, module in model.named_modules() if name}
    if not adapters:
        raise MTAdaptError("AdaptedBackbone: adapters is empty; give at least one, e.g. dict(type='LoRA', targets=...)")
    if hasattr(model, "adapters"):
        raise MTAdaptError(f"AdaptedBackbone: {type(model).__name__} has adapters of its own; use another backbone")
    added: dict[str, InsertedAdapter] = {}
    for settings in adapters:
        _add(added, modules, dict(settings))
    model.adapters = ModuleDict(added)
    model.register_forward_hook(_check_used)
    return model


def _add(added: dict[str, InsertedAdapter], modules: dict[str, nn.Module], settings: dict) -> None:
    """Make the adapters of one entry and hook them to their targets."""
    adapter_type = _adapter_type(settings.pop("type", None))
    label = adapter_type.__name__
    patterns = settings.pop("targets", None) or []
    known = [key for key in inspect.signature(adapter_type).parameters if key != "target"]
    unknown = set(settings) - set(known)
    if unknown:
        raise MTAdaptError(f"AdaptedBackbone: {label} has no setting {sorted(unknown)}; it has {known} and targets")
    examples = _examples([name for name, module in modules.items() if adapter_type.fits(module, **settings)])
    if not patterns:
        raise MTAdaptError(f"AdaptedBackbone: {label} has no targets; {examples}")
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        names = [name for name in modules if fnmatchcase(name, pattern)]
        if not names:
            raise MTAdaptError(f"AdaptedBackbone: {label} targets {pattern!r}, no module of the backbone; {examples}")
        for name in names:
            target, key = modules[name], f"{name.replace('.', '_')}_{label}"
            if not adapter_type.fits(target, **settings):
                raise MTAdaptError(
                    f"AdaptedBackbone: {label} targets {pattern!r}, but {name} ({type(target).__name__}) is not "
                    f"{adapter_type.needs}; {examples}"
                )
            if key in added:
                raise MTAdaptError(f"AdaptedBackbone: {label} targets {name} twice; leave one of the targets out")
            added[key] = adapter_type(target, **settings)
            target.register_forward_hook(added[key].hook)


def _adapter_type(kind: Any) -> Any:
    name = f"mtadapt.{kind}" if isinstance(kind, str) and "." not in kind else kind
    found = MODELS.get(name) if isinstance(name, str) else name
    if not (inspect.isclass(found) and issubclass(found, InsertedAdapter)):
        raise MTAdaptError(f"AdaptedBackbone: type={kind!r} is no adapter for modules; use 'LoRA' or 'TokenBottleneck'")
    return found


def _examples(names: Sequence[str]) -> str:
    """Of the names the first with every last part."""
    first: dict[str, str] = {}
    for name in names:
        first.setdefault(name.rpartition(".")[2], name)
    return f"what fits is for example {', '.join([*first.values()][:6])}" if first else "nothing in it fits"


def _check_used(backbone: Any, inputs: tuple, output: Any) -> None:
    """Forward hook of the backbone: an adapter whose target is not called would never train."""
    unused = [name for name, adapter in backbone.adapters.items() if not adapter.used]
    if unused:
        raise MTAdaptError(
            f"AdaptedBackbone: the targets of {len(unused)} adapters are not called by {type(backbone).__name__}, "
            f"which reads only their weights or does not use them, first {unused[0]}; take them out of targets"
        )
