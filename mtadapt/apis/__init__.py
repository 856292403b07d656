"""What uses a trained model: the inferencer, what it reads and what it writes."""

from mtadapt.apis.inferencer import MultiTaskInferencer

__all__ = ["MultiTaskInferencer"]
