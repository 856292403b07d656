"""What runs a model: configs, launchers, hooks."""

from mtadapt.engine.config import CfgOptions, build_runner, load_config, prepare_launch
from mtadapt.engine.hooks import (
    CheckpointMatchHook,
    MetricTableHook,
    MultiTaskVisualizationHook,
    ParameterTableHook,
    PromptMatchHook,
    TaskProgressHook,
)
from mtadapt.engine.stage_runner import StageRunner
from mtadapt.engine.stages import train_in_stages

__all__ = [
    "CfgOptions",
    "CheckpointMatchHook",
    "MetricTableHook",
    "MultiTaskVisualizationHook",
    "ParameterTableHook",
    "PromptMatchHook",
    "StageRunner",
    "TaskProgressHook",
    "build_runner",
    "load_config",
    "prepare_launch",
    "train_in_stages",
]
