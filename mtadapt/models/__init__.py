"""Models."""

from mtadapt.models.backbones import EfficientNetLite0
from mtadapt.models.data_preprocessor import MultiTaskDataPreprocessor
from mtadapt.models.multi_task_model import MultiTaskModel
from mtadapt.models.shared_features import SharedFeatures

__all__ = ["EfficientNetLite0", "MultiTaskDataPreprocessor", "MultiTaskModel", "SharedFeatures"]
