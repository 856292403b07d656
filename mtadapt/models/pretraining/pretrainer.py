"""Multi-label classification, masked image modelling and contrastive learning with one backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.model import BaseModel
from mmpretrain.structures import DataSample
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.relative_position import resize_tables
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample

#: Names of the branches in losses and weights.
BRANCHES = ("mlc", "mim", "con")


@MODELS.register_module()
class HeuristicPretrainer(BaseModel):
    """Pre-train a backbone on supervised and self-supervised tasks together.

    The first view of an image passes the backbone once for the multi-label head and for the queries of the contrastive
    branch, and once more, with hidden patches, for the decoder of masked image modelling; both passes have the same
    weights. The second view passes the momentum encoder. A branch that is None is switched off, with its passes.

    The backbone keeps its own names in the checkpoint, behind ``backbone.``, as those of mmpretrain's self-supervised
    models do.

    Args:
        backbone: config of a stock backbone whose last output is a map, e.g. ``dict(type='mmpretrain.SwinTransformer',
            ...)``, ``dict(type='mmpretrain.VisionTransformer', out_type='featmap', ...)`` or a ResNet.
        multi_label: config of a :class:`MLDecoderHead` or :class:`LinearMultiLabelHead`; losses ``mlc.loss_<kind>``.
        masked_image: settings of a :class:`MaskedImageBranch`; loss ``mim.loss_pixel``.
        contrastive: settings of a :class:`ContrastiveBranch`; losses ``con.loss_image`` and ``con.loss_patch``.
        loss_weights: factors of the losses of ``mlc``, ``mim`` and ``con``, 1 for those that are not named. Ours.
        loss_balancer: weights that change in training: ``dict(type='UncertaintyWeighting')`` or ``dict(type='DWA')``.
        data_preprocessor: a :class:`PretrainDataPreprocessor` config.
        init_cfg: as in :class:`mmengine.model.BaseModel`.

    Raises:
        MTAdaptError: without a branch, for weights of unknown branches, and for a backbone that gives no map.

    Reference:
        Heuristic Vision Pre-Training with Self-Supervised and Supervised Multi-Task Learning (arXiv 2310.07510). Its
        abstract names the three tasks; how they share passes, heads, losses and weights is ours.
    """

    def __init__(
        self,
        backbone: dict,
        multi_label: dict | None = None,
        masked_image: dict | None = None,
        contrastive: dict | None = None,
        loss_weights: Mapping[str, float] | None = None,
        loss_balancer: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ) -> None:
        super().__init__(data_preprocessor, init_cfg)
        self.backbone = MODELS.build(backbone)
        self.multi_label = MODELS.build(multi_label) if multi_label else None
        # First, because the momentum encoder is a copy of the backbone without a mask token.
        self.contrastive = self._branch("ContrastiveBranch", contrastive)
        self.masked_image = self._branch("MaskedImageBranch", masked_image)
        parts = (self.multi_label, self.masked_image, self.contrastive)
        self.branches = tuple(name for name, part in zip(BRANCHES, parts, strict=True) if part is not None)
        if not self.branches:
            raise MTAdaptError(
                "HeuristicPretrainer: multi_label, masked_image and contrastive are all None; give at least one"
            )
        self.loss_weights = dict(loss_weights or {})
        unknown = sorted(set(self.loss_weights) - set(BRANCHES))
        if unknown:
            raise MTAdaptError(f"HeuristicPretrainer: loss_weights of unknown branches {unknown}; known: {BRANCHES}")
        if loss_balancer and str(loss_balancer.get("type")).endswith("GradNorm"):
            raise MTAdaptError(
                "HeuristicPretrainer: GradNorm needs features that all losses share, and masked images have their own; "
                "use UncertaintyWeighting or DWA"
            )
        self.loss_balancer = MODELS.build(dict(loss_balancer, tasks=[*self.branches])) if loss_balancer else None
        self._register_load_state_dict_pre_hook(self._fit)

    def _branch(self, default: str, config: dict | None) -> Any:
        if not config:
            return None
        return MODELS.build({"type": f"mtadapt.{default}", **config, "backbone": self.backbone})

    def init_weights(self) -> None:
        """Initialise all parts; the momentum encoder begins as the encoder of the queries."""
        super().init_weights()
        self.restart_momentum_encoder()

    def restart_momentum_encoder(self) -> None:
        """Let the momentum encoder be equal to the encoder of the queries, whose weights come from elsewhere."""
        if self.contrastive is not None:
            self.contrastive.key_encoder.restart(self.backbone, self.contrastive.projector)

    def forward(
        self, inputs: Tensor, data_samples: Sequence[MultiTaskDataSample] | None = None, mode: str = "tensor"
    ) -> Any:
        """Run the model as MMEngine's runner does.

        Args:
            inputs: normalised views ``(N, V, 3, H, W)``, or images ``(N, 3, H, W)`` in mode ``tensor``.
            data_samples: one sample an image.
            mode: ``loss``, ``predict`` or ``tensor`` (the maps of the backbone).
        """
        if mode == "loss":
            return self.loss(inputs, data_samples or [])
        if mode == "predict":
            return self.predict(inputs, data_samples or [MultiTaskDataSample() for _ in inputs])
        if mode == "tensor":
            return tuple(self.backbone(inputs))
        raise MTAdaptError(f"HeuristicPretrainer: unknown mode {mode!r}; known: loss, predict, tensor")

    def loss(self, inputs: Tensor, samples: Sequence[MultiTaskDataSample]) -> dict[str, Tensor]:
        """Losses of all branches, named ``branch.name`` and multiplied by the branch's weight.

        Args:
            inputs: normalised views ``(N, V, 3, H, W)``; the second one is needed by the contrastive branch.
            samples: with ``mlc.gt_score`` ``(K,)`` for the multi-label branch and ``mask`` ``(h, w)`` for masked ones.

        Raises:
            MTAdaptError: when the samples lack what a branch needs.
        """
        images = inputs[:, 0]
        losses: dict[str, Tensor] = {}
        features = []
        if self.multi_label is not None or self.contrastive is not None:
            shared = self._last_map(images)
            features.append(shared)
        if self.multi_label is not None:
            losses.update(_named("mlc", self.multi_label.loss((shared,), _labels(samples))))
        if self.masked_image is not None:
            masks = _masks(samples)
            with self.masked_image.masking.hiding(masks, keep_statistics=bool(features)):
                masked = self._last_map(images)
            features.append(masked)
            losses["mim.loss_pixel"] = self.masked_image.loss(masked, images, masks)
        if self.contrastive is not None:
            if inputs.shape[1] < 2:
                raise MTAdaptError(
                    f"{_path(samples)}: one view, and the contrastive branch needs two; give PretrainViews a key "
                    "pipeline, or set contrastive=None"
                )
            losses.update(_named("con", self.contrastive.loss(self.backbone, shared, inputs[:, 1])))
        for key in losses:
            if "loss" in key:
                losses[key] = losses[key] * self.loss_weights.get(key.partition(".")[0], 1.0)
        return losses if self.loss_balancer is None else self.loss_balancer(losses, features)

    def predict(self, inputs: Tensor, samples: Sequence[MultiTaskDataSample]) -> list[MultiTaskDataSample]:
        """Scores of the labels, ``mlc.pred_score`` ``(K,)``, and the mean of the last map, ``embedding`` ``(C,)``.

        Args:
            inputs: normalised views ``(N, V, 3, H, W)``, of which the first is used.
            samples: to which the predictions are added.
        """
        shared = self._last_map(inputs[:, 0])
        if self.multi_label is not None:
            natives = [sample.get("mlc", DataSample()) for sample in samples]
            for sample, native in zip(samples, self.multi_label.predict((shared,), natives), strict=True):
                sample.set_task("mlc", native)
        for sample, embedding in zip(samples, shared.mean((2, 3)), strict=True):
            sample.set_field(embedding, "embedding", dtype=Tensor)
        return list(samples)

    @torch.no_grad()
    def reconstruct(self, images: Tensor, masks: Tensor) -> Tensor:
        """Pixels that the decoder gives for masked images.

        Args:
            images: normalised, ``(N, 3, H, W)``.
            masks: ``(N, h, w)``, 1 for hidden patches.

        Returns:
            Normalised pixels ``(N, 3, H, W)``, of which those of hidden patches mean something.
        """
        if self.masked_image is None:
            raise MTAdaptError("HeuristicPretrainer: masked_image is None, so nothing reconstructs images")
        with self.masked_image.masking.hiding(masks, keep_statistics=True):
            return self.masked_image.decoder(self._last_map(images)).float()

    def _last_map(self, images: Tensor) -> Tensor:
        last = self.backbone(images)[-1]
        if not isinstance(last, Tensor) or last.dim() != 4:
            raise MTAdaptError(
                f"HeuristicPretrainer: the last output of {type(self.backbone).__name__} is no map (N, C, H, W); "
                "give mmpretrain's vision transformers out_type='featmap'"
            )
        return last

    def _fit(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Before loading: tables of other windows, and checkpoints without a momentum encoder."""
        self._add_momentum_encoder(state_dict, prefix)
        resize_tables(state_dict, self.state_dict(), prefix)

    def _add_momentum_encoder(self, state_dict: dict[str, Tensor], prefix: str) -> None:
        """Of a checkpoint without a momentum encoder it is the encoder of the queries."""
        if self.contrastive is None or any(key.startswith(f"{prefix}{_KEYS}") for key in state_dict):
            return
        for part, source in (("backbone", "backbone"), ("projector", "contrastive.projector")):
            for name in getattr(self.contrastive.key_encoder, part).state_dict():
                if (given := state_dict.get(f"{prefix}{source}.{name}")) is not None:
                    state_dict[f"{prefix}{_KEYS}{part}.{name}"] = given


_KEYS = "contrastive.key_encoder."


def _named(branch: str, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{branch}.{name}": value for name, value in losses.items()}


def _labels(samples: Sequence[MultiTaskDataSample]) -> list[DataSample]:
    if not all("mlc" in sample for sample in samples):
        raise MTAdaptError(
            f"{_path(samples)}: no labels for the multi-label branch; take a MultiLabelDataset, where labels may be "
            "unknown, or set multi_label=None"
        )
    return [sample.mlc for sample in samples]


def _masks(samples: Sequence[MultiTaskDataSample]) -> Tensor:
    if not all("mask" in sample for sample in samples):
        raise MTAdaptError(
            f"{_path(samples)}: no mask for the branch of masked images; add MaskPatches to the pipeline, or set "
            "masked_image=None"
        )
    return torch.stack([sample.mask for sample in samples])


def _path(samples: Sequence[MultiTaskDataSample]) -> str:
    return str(samples[0].get("img_path", "sample 0")) if samples else "no samples"
