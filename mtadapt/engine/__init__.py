"""What runs a model: configs, launchers, hooks."""

from mtadapt.engine.config import CfgOptions, build_runner, load_config, prepare_launch
from mtadapt.engine.hooks import CheckpointMatchHook, MetricTableHook, MultiTaskVisualizationHook, TaskProgressHook

__all__ = [
    "CfgOptions",
    "CheckpointMatchHook",
    "MetricTableHook",
    "MultiTaskVisualizationHook",
    "TaskProgressHook",
    "build_runner",
    "load_config",
    "prepare_launch",
]
