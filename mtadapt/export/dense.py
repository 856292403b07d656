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

    head = task.decode_head
    stock = type(task).encode_decode is EncoderDecoder.encode_decode
    if not stock or any(
        getattr(type(head), each) is not getattr(BaseDecodeHead, each) for each in ("predict", "predict_by_feat")
    ):
        raise MTAdaptError(
            f"task {name!r}: {type(task).__name__} with {type(head).__name__} predicts in a way of its own, which has "
            "no form in a graph; EncoderDecoder with heads that give logits has one; leave the task out with --tasks"
        )
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

    head = task.head
    stock = type(task).predict is ImageClassifier.predict
    if not stock or any(
        getattr(type(head), each, None) is not getattr(ClsHead, each) for each in ("predict", "_get_predictions")
    ):
        raise MTAdaptError(
            f"task {name!r}: {type(task).__name__} with {type(head).__name__} predicts in a way of its own, which has "
            "no form in a graph; ImageClassifier with one label an image has one; leave the task out with --tasks"
        )
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
