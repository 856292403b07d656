"""What runs a model: configs, launchers, hooks."""

from mtadapt.engine.checkpoints import newest_whole_checkpoint
from mtadapt.engine.config import CfgOptions, build_runner, load_config, prepare_launch
from mtadapt.engine.hooks import (
    AbsentTaskHook,
    CheckpointMatchHook,
    CostHook,
    ExpertUsageHook,
    MetricTableHook,
    MultiTaskVisualizationHook,
    NonFiniteHook,
    ParameterTableHook,
    PromptMatchHook,
    RankHeartbeatHook,
    ReconstructionHook,
    ResumableCheckpointHook,
    TaskProgressHook,
)
from mtadapt.engine.optim import (
    AmpGradientSurgeryOptimWrapper,
    AmpSourceAccumulationOptimWrapper,
    GradientSurgeryOptimWrapper,
    SourceAccumulationHook,
    SourceAccumulationOptimWrapper,
    amp_variant,
)
from mtadapt.engine.stage_runner import StageRunner
from mtadapt.engine.stages import train_in_stages
from mtadapt.engine.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy
from mtadapt.engine.strategy_runner import StrategyRunner, runner_class

__all__ = [
    "AbsentTaskHook",
    "AmpGradientSurgeryOptimWrapper",
    "AmpSourceAccumulationOptimWrapper",
    "CfgOptions",
    "CheckpointMatchHook",
    "CostHook",
    "DDPStrategy",
    "DeepSpeedStrategy",
    "ExpertUsageHook",
    "FSDPStrategy",
    "GradientSurgeryOptimWrapper",
    "MetricTableHook",
    "MultiTaskVisualizationHook",
    "NonFiniteHook",
    "ParameterTableHook",
    "PromptMatchHook",
    "RankHeartbeatHook",
    "ReconstructionHook",
    "ResumableCheckpointHook",
    "SourceAccumulationHook",
    "SourceAccumulationOptimWrapper",
    "StageRunner",
    "StrategyRunner",
    "TaskProgressHook",
    "amp_variant",
    "build_runner",
    "load_config",
    "newest_whole_checkpoint",
    "prepare_launch",
    "runner_class",
    "train_in_stages",
]
