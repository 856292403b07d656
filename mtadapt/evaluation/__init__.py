"""Evaluation of every task with the metric of the task's own library, and one table over all tasks."""

from mtadapt.evaluation.drivable_metric import DrivableMetric
from mtadapt.evaluation.knn_top1 import KNNTop1
from mtadapt.evaluation.multi_label_map import MultiLabelMAP
from mtadapt.evaluation.multi_task_metric import MultiTaskMetric
from mtadapt.evaluation.summary import format_table

__all__ = ["DrivableMetric", "KNNTop1", "MultiLabelMAP", "MultiTaskMetric", "format_table"]
