"""Hooks."""

from mtadapt.engine.hooks.absent_task_hook import AbsentTaskHook
from mtadapt.engine.hooks.checkpoint_match_hook import CheckpointMatchHook
from mtadapt.engine.hooks.cost_hook import CostHook
from mtadapt.engine.hooks.expert_usage_hook import ExpertUsageHook
from mtadapt.engine.hooks.metric_table_hook import MetricTableHook
from mtadapt.engine.hooks.non_finite_hook import NonFiniteHook
from mtadapt.engine.hooks.parameter_table_hook import ParameterTableHook
from mtadapt.engine.hooks.prompt_match_hook import PromptMatchHook
from mtadapt.engine.hooks.rank_heartbeat_hook import RankHeartbeatHook
from mtadapt.engine.hooks.reconstruction_hook import ReconstructionHook
from mtadapt.engine.hooks.resumable_checkpoint_hook import ResumableCheckpointHook
from mtadapt.engine.hooks.task_progress_hook import TaskProgressHook
from mtadapt.engine.hooks.visualization_hook import MultiTaskVisualizationHook

__all__ = [
    "AbsentTaskHook",
    "CheckpointMatchHook",
    "CostHook",
    "ExpertUsageHook",
    "MetricTableHook",
    "MultiTaskVisualizationHook",
    "NonFiniteHook",
    "ParameterTableHook",
    "PromptMatchHook",
    "RankHeartbeatHook",
    "ReconstructionHook",
    "ResumableCheckpointHook",
    "TaskProgressHook",
]
