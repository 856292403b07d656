"""Optimizer wrappers: gradient surgery and accumulation per source; their state by the names of parameters."""

from mtadapt.engine.optim.amp import amp_variant
from mtadapt.engine.optim.gradient_surgery import AmpGradientSurgeryOptimWrapper, GradientSurgeryOptimWrapper
from mtadapt.engine.optim.parameter_order import parameter_groups, reorder_state
from mtadapt.engine.optim.source_accumulation import (
    AmpSourceAccumulationOptimWrapper,
    SourceAccumulationHook,
    SourceAccumulationOptimWrapper,
)

__all__ = [
    "AmpGradientSurgeryOptimWrapper",
    "AmpSourceAccumulationOptimWrapper",
    "GradientSurgeryOptimWrapper",
    "SourceAccumulationHook",
    "SourceAccumulationOptimWrapper",
    "amp_variant",
    "parameter_groups",
    "reorder_state",
]
