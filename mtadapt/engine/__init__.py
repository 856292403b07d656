"""What runs a model: configs, launchers, hooks."""

from mtadapt.engine.config import load_config, prepare_launch
from mtadapt.engine.hooks import MetricTableHook, MultiTaskVisualizationHook, TaskProgressHook

__all__ = ["MetricTableHook", "MultiTaskVisualizationHook", "TaskProgressHook", "load_config", "prepare_launch"]
