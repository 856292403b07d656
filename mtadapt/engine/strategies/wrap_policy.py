"""Which parts of a multi-task model FSDP may shard on their own."""

from __future__ import annotations

from mmengine.model import BaseDataPreprocessor
from torch import nn
from torch.distributed.fsdp.wrap import size_based_auto_wrap_policy

from mtadapt.models.moe import MoELayer
from mtadapt.models.shared_features import SharedFeatures
from mtadapt.registry import FUNCTIONS


@FUNCTIONS.register_module()
def shared_parts_policy(
    module: nn.Module, recurse: bool, nonwrapped_numel: int, min_num_params: int = 1_000_000
) -> bool:
    """Give the parts of the backbone and the neck above a size a shard of their own.

    FSDP gathers the parameters of a part when its ``forward`` is called. Tasks and adapters are called by other
    methods (``loss``, ``predict``), so they stay with the model itself, whose ``forward`` starts every step. A layer
    with experts reads the parameters of the modules in it, which it does not call; they stay with the block around it.

    Args:
        module: the part in question.
        recurse: whether the question is to look inside it, else whether to wrap it.
        nonwrapped_numel: its parameters that no part inside it has taken.
        min_num_params: parameters that make a part worth its own gathering.
    """
    by_methods = isinstance(getattr(module, "backbone", None), SharedFeatures) or getattr(module, "is_adapter", False)
    if by_methods or isinstance(module, (BaseDataPreprocessor, MoELayer)):
        return False
    return size_based_auto_wrap_policy(module, recurse, nonwrapped_numel, min_num_params=min_num_params)
