"""Visualizers."""

from mtadapt.visualization.multi_task_visualizer import MultiTaskVisualizer

__all__ = ["MultiTaskVisualizer"]
