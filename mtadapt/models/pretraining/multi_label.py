"""Heads for image labels of several kinds, some of which are unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmpretrain.models.heads import MultiLabelClsHead
from mmpretrain.models.losses.asymmetric_loss import asymmetric_loss
from mmpretrain.structures import DataSample
from timm.layers.ml_decoder import MLDecoder
from torch import Tensor, nn

from mtadapt.datasets.multi_label import LabelVocabulary
from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS


@MODELS.register_module()
class PartialAsymmetricLoss(nn.Module):
    """Asymmetric loss of the labels that are known.

    With all labels known it is mmpretrain's ``AsymmetricLoss`` in a ``MultiLabelClsHead``: summed over the labels,
    averaged over the images. Ours: unknown labels (target below 0) add nothing, and images without a known label do
    not count; without any known label the loss is zero.

    Args:
        gamma_pos: focusing parameter of present labels.
        gamma_neg: focusing parameter of absent labels.
        clip: probability by which absent labels are shifted.

    Reference:
        Asymmetric Loss For Multi-Label Classification (arXiv 2009.14119).
    """

    def __init__(self, gamma_pos: float = 0.0, gamma_neg: float = 4.0, clip: float = 0.05) -> None:
        super().__init__()
        self.gamma_pos, self.gamma_neg, self.clip = gamma_pos, gamma_neg, clip

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits ``(N, K)`` for targets ``(N, K)``: 1 present, 0 absent, -1 unknown."""
        known = targets >= 0
        losses = asymmetric_loss(
            logits.float(),
            (targets > 0).float(),
            gamma_pos=self.gamma_pos,
            gamma_neg=self.gamma_neg,
            clip=self.clip,
            reduction="none",
        )
        return torch.where(known, losses, losses * 0).sum() / known.any(1).sum().clamp(min=1)


class _KindsHead(MultiLabelClsHead):
    """Loss and prediction of labels of several kinds; a subclass gives the logits."""

    def __init__(self, labels: Mapping[str, Sequence[str]], loss: dict | None = None, **settings: Any) -> None:
        super().__init__(loss=MODELS.build(loss or dict(type="mtadapt.PartialAsymmetricLoss")), **settings)
        vocabulary = LabelVocabulary(labels)
        # In the order of the targets, which is not that of the setting.
        self.sizes = {kind: stop - start for kind, (start, stop) in vocabulary.kinds.items()}
        self.num_classes = len(vocabulary)

    def _get_loss(self, cls_score: Tensor, data_samples: list[DataSample], **kwargs: Any) -> dict[str, Tensor]:
        targets = torch.stack([sample.gt_score for sample in data_samples])
        if targets.shape != cls_score.shape:
            raise MTAdaptError(
                f"{type(self).__name__}: the head has {cls_score.shape[1]} labels and the samples {targets.shape[1]}; "
                "give head and dataset the same labels"
            )
        parts = zip(cls_score.split([*self.sizes.values()], 1), targets.split([*self.sizes.values()], 1), strict=True)
        return {f"loss_{kind}": self.loss_module(*part) for kind, part in zip(self.sizes, parts, strict=True)}


@MODELS.register_module()
class LinearMultiLabelHead(_KindsHead):
    """Logits of image labels from the mean of the last map.

    It is also a head for mmpretrain's ``ImageClassifier``, without a neck.

    Args:
        in_channels: channels of the last map.
        labels: kind of labels to their names, as in :class:`~mtadapt.datasets.MultiLabelDataset`; losses are named
            ``loss_<kind>``.
        loss: :class:`PartialAsymmetricLoss` by default.
        settings: ``thr``, ``topk`` and ``init_cfg`` of mmpretrain's ``MultiLabelClsHead``.
    """

    def __init__(
        self, in_channels: int, labels: Mapping[str, Sequence[str]], loss: dict | None = None, **settings: Any
    ) -> None:
        settings.setdefault("init_cfg", dict(type="Normal", layer="Linear", std=0.01))
        super().__init__(labels, loss, **settings)
        self.fc = nn.Linear(in_channels, self.num_classes)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Logits ``(N, K)`` from maps, of which the last, ``(N, C, H, W)``, is used."""
        return self.fc(feats[-1].mean((2, 3)))


@MODELS.register_module()
class MLDecoderHead(_KindsHead):
    """Logits of image labels from a decoder whose queries attend to the last map: the layers of timm's ``MLDecoder``.

    Ours: its forward pass, because timm's calls ``nn.TransformerDecoder``, which wants self-attention since torch 2.0.

    It is also a head for mmpretrain's ``ImageClassifier``, without a neck.

    Args:
        in_channels: channels of the last map.
        labels: kind of labels to their names, as in :class:`~mtadapt.datasets.MultiLabelDataset`; losses are named
            ``loss_<kind>``.
        num_groups: number of queries, each of which stands for a group of labels; at most one a label.
        embed_dims: channels of the decoder, a multiple of 8.
        loss: :class:`PartialAsymmetricLoss` by default.
        settings: ``thr``, ``topk`` and ``init_cfg`` of mmpretrain's ``MultiLabelClsHead``.

    Reference:
        ML-Decoder (arXiv 2111.12933).
    """

    def __init__(
        self,
        in_channels: int,
        labels: Mapping[str, Sequence[str]],
        num_groups: int = 100,
        embed_dims: int = 768,
        loss: dict | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(labels, loss, **settings)
        self.decoder = MLDecoder(
            self.num_classes,
            num_of_groups=num_groups,
            decoder_embedding=embed_dims,
            initial_num_features=in_channels,
        )

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        """Logits ``(N, K)`` from maps, of which the last, ``(N, C, H, W)``, is used."""
        decoder = self.decoder
        memory = decoder.embed_standart(feats[-1].flatten(2).permute(2, 0, 1)).relu()
        queries = decoder.query_embed.weight[:, None].expand(-1, memory.shape[1], -1)
        groups = decoder.decoder.layers[0](queries, memory)
        # Each group has its own weights for its labels: (G, N, D) @ (G, D, labels).
        logits = (groups @ decoder.duplicate_pooling).transpose(0, 1).flatten(1)
        return logits[:, : self.num_classes] + decoder.duplicate_pooling_bias
