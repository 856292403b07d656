"""Stock segmentors and classifiers as graphs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mtadapt.errors import MTAdaptError

Size = tuple[int, int]


def segmentor_graph(task: Any, name: str, postprocess: bool) -> nn.Module:
    """The graph of a stock segmentor.

    Args:
        task: the model.
        name: of the task, for messages.
        postprocess: whether classes are given instead of logits.

    Raises:
        MTAdaptError: for a model or head that predicts in a way of its own.
    """
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead
    from mmseg.models.segmentors import EncoderDecoder

    stock = type(task).encode_decode is EncoderDecoder.encode_decode
    _check_way(name, task, task.decode_head, stock, BaseDecodeHead, "predict_by_feat", "heads that give logits")
    return SegmentorGraph(task, postprocess)


class SegmentorGraph(nn.Module):
    """A segmentor whose head gives logits.

    Args:
        task: the stock model.
        postprocess: whether classes are given instead of logits.
    """

    def __init__(self, task: Any, postprocess: bool) -> None:
        super().__init__()
        self.task, self.postprocess = task, postprocess
        self.outputs = ("classes",) if postprocess else ("logits",)

    def forward(self, shared: tuple[Tensor, ...], size: Size, padded: Size) -> tuple[Tensor, ...]:
        """Classes ``(N, H, W)`` uint8 in the size of the images, or logits ``(N, C, H, W)``.

        Args:
            shared: the shared features.
            size: height and width of the images.
            padded: those with the padding.
        """
        head = self.task.decode_head
        logits = head(self.task.extract_feat(shared))
        logits = F.interpolate(logits, size=padded, mode="bilinear", align_corners=head.align_corners)
        logits = logits[:, :, : size[0], : size[1]]
        if not self.postprocess:
            return (logits,)
        if logits.shape[1] == 1:
            return ((logits[:, 0].sigmoid() > head.threshold).to(torch.uint8),)
        classes = logits.argmax(dim=1)
        return (classes.to(torch.uint8 if logits.shape[1] <= 256 else torch.int32),)


def _check_way(name: str, task: Any, head: Any, stock: bool, kind: type, method: str, exported: str) -> None:
    """Refuse a model that is not the stock one, and a head that predicts otherwise than the class ``kind``."""
    methods = ("predict", method)
    if not stock or any(getattr(type(head), each, None) is not getattr(kind, each) for each in methods):
        raise MTAdaptError(
            f"task {name!r}: {type(task).__name__} with {type(head).__name__} predicts in a way of its own, which has "
            f"no form in a graph; exported are {exported}; leave the task out with --tasks"
        )


def classifier_graph(task: Any, name: str, postprocess: bool) -> nn.Module:
    """The graph of a stock classifier.

    Args:
        task: the model.
        name: of the task, for messages.
        postprocess: whether probabilities are given instead of logits.

    Raises:
        MTAdaptError: for a model or head that predicts in a way of its own.
    """
    from mmpretrain.models.classifiers import ImageClassifier
    from mmpretrain.models.heads import ClsHead

    stock = type(task).predict is ImageClassifier.predict
    _check_way(name, task, task.head, stock, ClsHead, "_get_predictions", "one label an image")
    return ClassifierGraph(task, postprocess)


class ClassifierGraph(nn.Module):
    """A classifier of one label an image.

    Args:
        task: the stock model.
        postprocess: whether probabilities are given instead of logits.
    """

    def __init__(self, task: Any, postprocess: bool) -> None:
        super().__init__()
        self.task, self.postprocess = task, postprocess
        self.outputs = ("scores", "labels") if postprocess else ("logits",)

    def forward(self, shared: tuple[Tensor, ...], size: Size, padded: Size) -> tuple[Tensor, ...]:
        """Probabilities ``(N, C)`` and the best class ``(N,)``, or logits ``(N, C)``.

        Args:
            shared: the shared features.
            size: height and width of the images.
            padded: those with the padding.
        """
        logits = self.task.head(self.task.extract_feat(shared))
        if not self.postprocess:
            return (logits,)
        scores = logits.softmax(dim=1)
        return scores, scores.argmax(dim=1)
