"""Optimizer wrappers: gradient surgery and accumulation per source."""

from mtadapt.engine.optim.amp import amp_variant
from mtadapt.engine.optim.gradient_surgery import AmpGradientSurgeryOptimWrapper, GradientSurgeryOptimWrapper
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
]
