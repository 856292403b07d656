"""Stock detectors as graphs: dense heads, and region proposals with a RoI head.

The tensor parts of the stock heads run as they are. What mmdet does image by image, with as many boxes as there happen
to be, is done here for the batch, with the same numbers (see :mod:`mtadapt.export.boxes`).
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from mmdet.models.dense_heads import RPNHead, RTMDetHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors.single_stage import SingleStageDetector
from mmdet.models.detectors.two_stage import TwoStageDetector
from mmdet.models.roi_heads import SingleRoIExtractor, StandardRoIHead
from mmdet.models.roi_heads.bbox_heads import BBoxHead
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.export.boxes import Suppression, best_places, check_coder, decode, finished, take, without_small
from mtadapt.export.suppression import NOTHING

Size = tuple[int, int]
Levels = list[tuple[Tensor, Tensor, Tensor | None, Tensor]]


def detector_graph(task: Any, name: str, postprocess: bool) -> nn.Module:
    """The graph of a stock detector.

    Args:
        task: the model.
        name: of the task, for messages.
        postprocess: whether boxes are suppressed.

    Raises:
        MTAdaptError: for a model that predicts in a way of its own.
    """
    kind = type(task)
    if kind.predict is SingleStageDetector.predict:
        return SingleStageGraph(task, name, postprocess)
    if kind.predict is TwoStageDetector.predict:
        return TwoStageGraph(task, name, postprocess)
    raise MTAdaptError(
        f"task {name!r}: {kind.__name__} predicts in a way of its own ({kind.predict.__qualname__}), which has no "
        "form in a graph; detectors with a dense head or with region proposals have one; leave it out with --tasks"
    )


def _check_stock(head: Any, methods: dict[str, Any], name: str) -> None:
    """Refuse a head that does other than the class whose way was made a graph."""
    for method, stock in methods.items():
        known = stock if isinstance(stock, tuple) else (stock,)
        if getattr(type(head), method) not in [getattr(each, method) for each in known]:
            raise MTAdaptError(
                f"task {name!r}: {type(head).__name__} has a {method} of its own, which has no form in a graph; "
                f"heads with that of {known[0].__name__} have one; leave it out with --tasks"
            )


def _check_activation(head: Any, name: str) -> None:
    if getattr(head.loss_cls, "custom_cls_channels", False):
        raise MTAdaptError(
            f"task {name!r}: {type(head.loss_cls).__name__} has scores of its own, which are not exported; "
            "leave the task out with --tasks"
        )


class _DenseHead(nn.Module):
    """What a dense head predicts, level by level."""

    def __init__(self, head: Any, name: str, place: str) -> None:
        super().__init__()
        check_coder(head.bbox_coder, f"task {name!r}: {place}")
        _check_activation(head, name)
        self.head = head
        # mmdet's own way calls torch.meshgrid without its indexing, which a traced graph cannot hold.
        head.prior_generator._meshgrid = _grid

    def forward(self, features: tuple[Tensor, ...]) -> Levels:
        """Scores ``(N, P, C)``, predictions ``(N, P, 4)``, factors of the scores ``(N, P)`` or None, priors ``(P, D)``.

        P is the number of priors of a level.
        """
        head = self.head
        outputs = head(features)
        scores, boxes = outputs[0], outputs[1]
        factors = outputs[2] if len(outputs) > 2 else [None] * len(scores)
        priors = head.prior_generator.grid_priors(
            [level.shape[-2:] for level in scores], dtype=scores[0].dtype, device=scores[0].device
        )
        levels = []
        for score, box, factor, prior in zip(scores, boxes, factors, priors, strict=True):
            logits = _rows(score, head.cls_out_channels)
            probabilities = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]
            weights = None if factor is None else _rows(factor, 1).sigmoid()[..., 0]
            levels.append((probabilities, _rows(box, 4), weights, prior))
        return levels

    def decode(self, priors: Tensor, predicted: Tensor, size: Size) -> Tensor:
        return decode(self.head.bbox_coder, priors, predicted, size)


def _grid(x: Tensor, y: Tensor, row_major: bool = True) -> tuple[Tensor, Tensor]:
    """Coordinates of all pairs of ``x`` ``(W,)`` and ``y`` ``(H,)``, with ``y`` outside: twice ``(H * W,)``."""
    xs, ys = x.repeat(y.shape[0]), y[:, None].repeat(1, x.shape[0]).reshape(-1)
    return (xs, ys) if row_major else (ys, xs)


def _rows(level: Tensor, channels: int) -> Tensor:
    """``(N, A * C, H, W)`` as ``(N, H * W * A, C)``."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, channels)


def _candidates(levels: Levels, threshold: float, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The best pairs of a prior and a class of every level.

    Args:
        levels: of :class:`_DenseHead`.
        threshold: a score must be above it.
        count: how many of a level at most.

    Returns:
        Scores ``(N, M)``, with their factors; labels ``(N, M)``; numbers of the levels ``(N, M)``; predictions
        ``(N, M, 4)``; and priors ``(N, M, D)``.
    """
    found = []
    for number, (scores, predicted, factors, priors) in enumerate(levels):
        images, _, classes = scores.shape
        flat = scores.reshape(images, -1)
        best, places = best_places(flat.masked_fill(flat <= threshold, NOTHING), count)
        rows = places // classes
        if factors is not None:
            best = torch.where(best > threshold, best * take(factors[..., None], rows)[..., 0], best)
        found.append((best, places % classes, torch.full_like(rows, number), take(predicted, rows), priors[rows]))
    scores, labels, numbers, predicted, priors = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
    return scores, labels, numbers, predicted, priors


def _number_of_candidates(settings: Any, place: str) -> int:
    if settings.get("nms_pre", -1) <= 0:
        raise MTAdaptError(f"{place}.nms_pre={settings.get('nms_pre')}: write how many candidates of a level are used")
    return int(settings["nms_pre"])


class SingleStageGraph(nn.Module):
    """A detector with a dense head: RetinaNet, FCOS, ATSS, RTMDet and their like.

    Args:
        task: the stock model.
        name: of the task, for messages.
        postprocess: whether boxes are suppressed.

    Raises:
        MTAdaptError: for a head that has no form in a graph, or settings of the suppression that have none.
    """

    def __init__(self, task: Any, name: str, postprocess: bool) -> None:
        super().__init__()
        head, place = task.bbox_head, f"task {name!r}: test_cfg"
        _check_stock(head, dict(predict=BaseDenseHead, predict_by_feat=BaseDenseHead), name)
        _check_stock(head, dict(_predict_by_feat_single=(BaseDenseHead, RTMDetHead)), name)
        _check_stock(head, dict(_bbox_post_process=(BaseDenseHead, RTMDetHead)), name)
        self.task, self.head = task, _DenseHead(head, name, "bbox_head")
        self.postprocess = postprocess
        self.threshold = float(head.test_cfg.get("score_thr", 0))
        self.min_size = float(head.test_cfg.get("min_bbox_size", -1))
        self.count = _number_of_candidates(head.test_cfg, place)
        self.suppression = Suppression.of(head.test_cfg, place)
        self.outputs = ("boxes", "scores", "labels") if postprocess else ("boxes", "scores")

    def forward(self, shared: tuple[Tensor, ...], size: Size, padded: Size) -> tuple[Tensor, ...]:
        """Detections.

        Args:
            shared: the shared features.
            size: height and width of the images.
            padded: those with the padding.

        Returns:
            Boxes ``(N, K, 4)``, scores ``(N, K)`` and labels ``(N, K)``; without post-processing boxes ``(N, P, 4)``
            and scores ``(N, P, C)`` of all priors.
        """
        levels = self.head(self.task.extract_feat(shared))
        if not self.postprocess:
            return self._raw(levels, size)
        scores, labels, _, predicted, priors = _candidates(levels, self.threshold, self.count)
        boxes = self.head.decode(priors, predicted, size)
        scores = without_small(scores, boxes, self.min_size)
        return finished(*self.suppression.best(boxes, scores, labels))

    def _raw(self, levels: Levels, size: Size) -> tuple[Tensor, Tensor]:
        predicted = torch.cat([level[1] for level in levels], dim=1)
        priors = torch.cat([level[3] for level in levels])[None].expand(predicted.shape[0], -1, -1)
        scores = [score if factor is None else score * factor[..., None] for score, _, factor, _ in levels]
        return self.head.decode(priors, predicted, size), torch.cat(scores, dim=1)


class TwoStageGraph(nn.Module):
    """A detector with region proposals and a RoI head, as Faster R-CNN.

    Args:
        task: the stock model.
        name: of the task, for messages.
        postprocess: whether the boxes of the RoI head are suppressed; proposals always are.

    Raises:
        MTAdaptError: for heads that have no form in a graph, or settings of a suppression that have none.
    """

    def __init__(self, task: Any, name: str, postprocess: bool) -> None:
        super().__init__()
        rpn, roi = task.rpn_head, task.roi_head
        place = f"task {name!r}: test_cfg"
        _check_stock(rpn, dict(predict=BaseDenseHead, predict_by_feat=BaseDenseHead), name)
        _check_stock(rpn, dict(_predict_by_feat_single=RPNHead, _bbox_post_process=RPNHead), name)
        _check_stock(roi, dict(predict=StandardRoIHead, predict_bbox=StandardRoIHead), name)
        _check_stock(roi, dict(_bbox_forward=StandardRoIHead), name)
        head = roi.bbox_head
        _check_stock(head, dict(predict_by_feat=BBoxHead, _predict_by_feat_single=BBoxHead), name)
        _check_stock(roi.bbox_roi_extractor, dict(forward=SingleRoIExtractor), name)
        if roi.with_mask or not head.with_reg:
            lack = "masks of instances" if roi.with_mask else "a bbox_head without boxes"
            raise MTAdaptError(f"task {name!r}: {lack} cannot be exported; leave the task out with --tasks")
        check_coder(head.bbox_coder, f"task {name!r}: roi_head.bbox_head")
        _check_activation(head, name)
        self.task, self.roi, self.rpn = task, roi, _DenseHead(rpn, name, "rpn_head")
        self.postprocess = postprocess
        self.count = _number_of_candidates(rpn.test_cfg, f"{place}.rpn")
        self.min_size = float(rpn.test_cfg.get("min_bbox_size", -1))
        self.proposals = Suppression.of(rpn.test_cfg, f"{place}.rpn")
        self.threshold = float(roi.test_cfg.score_thr)
        self.suppression = Suppression.of(roi.test_cfg, f"{place}.rcnn")
        self.outputs = ("boxes", "scores", "labels") if postprocess else ("boxes", "scores")

    def forward(self, shared: tuple[Tensor, ...], size: Size, padded: Size) -> tuple[Tensor, ...]:
        """Detections.

        Args:
            shared: the shared features.
            size: height and width of the images.
            padded: those with the padding.

        Returns:
            Boxes ``(N, K, 4)``, scores ``(N, K)`` and labels ``(N, K)``; without post-processing boxes
            ``(N, P, C, 4)``, C being 1 where all classes share their box, and scores ``(N, P, C)`` of all proposals.
        """
        features = self.task.extract_feat(shared)
        proposals, present = self._propose(features, size)
        boxes, scores = self._classify(features, proposals, size)
        scores = scores * present[..., None]
        if not self.postprocess:
            return boxes, scores
        images, places, classes = scores.shape
        flat = scores.reshape(images, -1)
        flat = flat.masked_fill(flat <= self.threshold, NOTHING)
        labels = torch.arange(classes, device=flat.device).expand(images, places, classes).reshape(images, -1)
        each = boxes.expand(images, places, classes, 4).reshape(images, -1, 4)
        return finished(*self.suppression.best(each, flat, labels))

    def _propose(self, features: tuple[Tensor, ...], size: Size) -> tuple[Tensor, Tensor]:
        """Proposals ``(N, P, 4)``, and which of them there are, ``(N, P)``."""
        # Every score counts, also 0.
        scores, _, numbers, predicted, priors = _candidates(self.rpn(features), NOTHING / 2, self.count)
        boxes = self.rpn.decode(priors, predicted, size)
        scores = without_small(scores, boxes, self.min_size)
        boxes, scores, _ = self.proposals.best(boxes, scores, numbers)
        present = scores >= 0
        return boxes.masked_fill(~present[..., None], 0), present

    def _classify(self, features: tuple[Tensor, ...], proposals: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """Boxes ``(N, P, C, 4)`` and scores ``(N, P, C)`` of the proposals."""
        images, places, _ = proposals.shape
        number = torch.arange(images, device=proposals.device).to(proposals)[:, None, None]
        rois = torch.cat((number.expand(-1, places, -1), proposals), dim=-1).reshape(-1, 5)
        extractor, head = self.roi.bbox_roi_extractor, self.roi.bbox_head
        found = _roi_features(extractor, features[: extractor.num_inputs], rois)
        if self.roi.with_shared_head:
            found = self.roi.shared_head(found)
        logits, predicted = head(found)[:2]
        scores = logits.softmax(-1)[..., :-1].reshape(images, places, -1)
        classes = 1 if head.reg_class_agnostic else head.num_classes
        priors = proposals[:, :, None].expand(-1, -1, classes, -1).reshape(images, -1, 4)
        boxes = decode(head.bbox_coder, priors, predicted.reshape(images, -1, 4), size)
        return boxes.reshape(images, places, classes, 4), scores


def _roi_features(extractor: Any, features: tuple[Tensor, ...], rois: Tensor) -> Tensor:
    """Features ``(R, C, h, w)`` of RoIs ``(R, 5)``, each from the level of its size."""
    layers = extractor.roi_layers
    if len(features) == 1:
        return _roi_align(layers[0], features[0], rois)
    chosen = extractor.map_roi_levels(rois, len(features))
    found = features[0].new_zeros(rois.shape[0], extractor.out_channels, *layers[0].output_size)
    for number, (layer, level) in enumerate(zip(layers, features, strict=True)):
        rows = (chosen == number).nonzero().squeeze(1)
        found = found.index_copy(0, rows, _roi_align(layer, level, rois[rows]))
    return found


def _roi_align(layer: Any, level: Tensor, rois: Tensor) -> Tensor:
    return torchvision.ops.roi_align(
        level, rois, layer.output_size, layer.spatial_scale, layer.sampling_ratio, layer.aligned
    )
