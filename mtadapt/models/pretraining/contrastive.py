"""Contrastive learning with a momentum encoder, of images and of patches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, get_rank, get_world_size
from mmengine.model import BaseModule
from mmpretrain.models.utils import batch_shuffle_ddp, batch_unshuffle_ddp
from torch import Tensor, nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm

from mtadapt.errors import MTAdaptError
from mtadapt.models.pretraining.key_queue import KeyQueue
from mtadapt.models.pretraining.momentum_encoder import MomentumEncoder
from mtadapt.registry import MODELS


@MODELS.register_module()
class ContrastiveBranch(BaseModule):
    """InfoNCE between two views of an image, the second one seen by a momentum encoder.

    Negatives are the keys of past batches (``queue_len``), as in MoCo, or without a queue those of the other images of
    the batch on all processes, as in MoCo v3. With a projector for patches (mmpretrain's ``DenseCLNeck``) the patches
    of the two views are compared as well: a patch's positive is the patch of the other view that the backbones find
    most similar, its negatives are mean patches of other images, as in DenseCL.

    Ours: the query is the view that the other branches use, so that its pass through the backbone is shared; MoCo
    gives both views strong augmentation. The loss is not symmetric in the views.

    Args:
        backbone: of the queries; the momentum encoder starts as its copy.
        projector: config of a neck from the last map to the vectors that are compared, e.g.
            ``dict(type='mmpretrain.MoCoV2Neck', in_channels=1024, hid_channels=2048, out_channels=128)``.
        queue_len: keys in the queue, 0 for negatives from the batch.
        momentum: share of the new weights in an update of the momentum encoder, which comes before its keys.
        temperature: that the similarities are divided by.
        patch_weight: share of the patches' loss, in [0, 1]; the images' has the rest. Needs a ``DenseCLNeck``.

    Raises:
        MTAdaptError: for values that are not possible.

    Reference:
        MoCo v2 (arXiv 2003.04297), MoCo v3 (arXiv 2104.02057) and DenseCL (arXiv 2011.09157).
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: dict,
        queue_len: int = 65536,
        momentum: float = 0.001,
        temperature: float = 0.2,
        patch_weight: float = 0.0,
    ) -> None:
        super().__init__()
        _check("momentum", momentum, 0 < momentum <= 1, "(0, 1]; MoCo's m=0.999 is momentum=0.001")
        _check("temperature", temperature, temperature > 0, "(0, inf)")
        _check("patch_weight", patch_weight, 0 <= patch_weight <= 1, "[0, 1]")
        if bool(patch_weight) != str(projector.get("type")).endswith("DenseCLNeck"):
            raise MTAdaptError(
                f"ContrastiveBranch: patch_weight={patch_weight} with the projector {projector.get('type')!r}; patches "
                "need a mmpretrain.DenseCLNeck, half of which would never train without them"
            )
        if not isinstance(queue_len, int):
            raise MTAdaptError(f"ContrastiveBranch: queue_len={queue_len!r}; write a whole number, 0 for no queue")
        self.temperature, self.patch_weight = temperature, patch_weight
        self.projector = MODELS.build(projector)
        self.key_encoder = MomentumEncoder(backbone, self.projector, momentum)
        if queue_len and "out_channels" not in projector:
            raise MTAdaptError("ContrastiveBranch: the queue needs the out_channels of the projector; write them out")
        channels = projector.get("out_channels", 0)
        self.queue = KeyQueue(queue_len, channels) if queue_len else None
        self.patch_queue = KeyQueue(queue_len, channels) if queue_len and patch_weight else None

    def loss(self, backbone: nn.Module, features: Tensor, views: Tensor) -> dict[str, Tensor]:
        """Losses of a batch; in training after an update of the momentum encoder, whose keys then join the queue.

        Args:
            backbone: of the queries.
            features: its last map of the first view, ``(N, C, h, w)``.
            views: the second view, ``(N, 3, H, W)``.

        Returns:
            ``loss_image``, with patches ``loss_patch``, and the statistic ``accuracy``: percentage of the queries whose
            own key is the most similar one.
        """
        if self.training:
            self.key_encoder.update(backbone, self.projector)
        queries, query_patches, _ = _vectors(self.projector, features)
        with torch.no_grad():
            key_features, keys, key_patches, mean_patches = self._keys(views)
        # Similarities are float32 also under autocast.
        with torch.autocast(queries.device.type, enabled=False):
            negatives, own = self._negatives(self.queue, keys)
            loss, accuracy = info_nce(queries, keys, negatives, self.temperature, own)
            losses = dict(loss_image=loss * (1 - self.patch_weight), accuracy=accuracy)
            if self.patch_weight:
                positives = match_patches(features, key_features, key_patches)
                negatives, own = self._negatives(self.patch_queue, mean_patches)
                rows = query_patches.shape[2]
                flat, positives = (each.transpose(1, 2).flatten(0, 1) for each in (query_patches, positives))
                own = own.repeat_interleave(rows) if own is not None else None
                loss, _ = info_nce(flat, positives, negatives, self.temperature, own)
                losses["loss_patch"] = loss * self.patch_weight
        if self.queue is not None and self.training:
            self.queue.put(keys)
        if self.patch_queue is not None and self.training:
            self.patch_queue.put(mean_patches)
        return losses

    def _keys(self, views: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map, key, patches and mean patch of every image."""
        encoder = self.key_encoder
        if not self._shuffles():
            features = encoder.backbone(views)[-1]
            return (features, *_vectors(encoder.projector, features))
        # BatchNorm of the process would tell which keys were in the batch of their queries.
        views, order = batch_shuffle_ddp(views)
        features = encoder.backbone(views)[-1]
        made = (features, *_vectors(encoder.projector, features))
        features, keys, patches, mean_patches = (batch_unshuffle_ddp(each, order) for each in made)
        return features, keys, patches, mean_patches

    def _shuffles(self) -> bool:
        return get_world_size() > 1 and any(
            isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm)
            for module in self.key_encoder.modules()
        )

    def _negatives(self, queue: KeyQueue | None, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """Negatives ``(M, C)``, and for each image which of them is its own key, if one is."""
        if queue is not None:
            return queue.snapshot(), None
        if len(keys) * get_world_size() < 2:
            raise MTAdaptError("ContrastiveBranch: one image has no negatives; use larger batches or a queue_len")
        own = torch.arange(len(keys), device=keys.device) + get_rank() * len(keys)
        return torch.cat(all_gather(keys)), own


def info_nce(
    queries: Tensor, positives: Tensor, negatives: Tensor, temperature: float, own: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of finding the positive among the negatives.

    Args:
        queries: unit vectors ``(N, C)``.
        positives: unit vectors ``(N, C)``.
        negatives: unit vectors ``(M, C)``.
        temperature: that similarities are divided by.
        own: for each query the row of ``negatives`` that is its positive, which does not count, ``(N,)``.

    Returns:
        The loss, and the percentage of the queries whose positive is the most similar.
    """
    positive = (queries * positives).sum(1, keepdim=True) / temperature
    others = queries @ negatives.T / temperature
    if own is not None:
        others = others.scatter(1, own[:, None], float("-inf"))
    logits = torch.cat([positive, others], dim=1)
    target = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    accuracy = (logits.detach().argmax(1) == target).float().mean() * 100
    return F.cross_entropy(logits, target), accuracy


@torch.no_grad()
def match_patches(queries: Tensor, keys: Tensor, patches: Tensor) -> Tensor:
    """For every patch of a query the most similar patch of its key.

    Args:
        queries: map of the backbone ``(N, D, h, w)``.
        keys: the same of the other view.
        patches: what is taken, ``(N, C, h * w)``.

    Returns:
        ``(N, C, h * w)``, in the order of the patches of the query.

    Raises:
        MTAdaptError: when the maps have other patches.
    """
    if queries.shape != keys.shape or patches.shape[2] != queries.shape[2] * queries.shape[3]:
        raise MTAdaptError(
            f"ContrastiveBranch: {patches.shape[2]} patches for maps of {tuple(queries.shape[2:])}; leave num_grid of "
            "the projector out, and give both views one size"
        )
    first, second = (F.normalize(each.flatten(2).float(), dim=1) for each in (queries, keys))
    best = (first.transpose(1, 2) @ second).argmax(2)
    return patches.gather(2, best[:, None].expand(-1, patches.shape[1], -1))


def _vectors(projector: nn.Module, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit vectors of the images ``(N, C)``, of their patches ``(N, C, P)`` and of the mean patches ``(N, C)``."""
    made = projector((features,))
    if len(made) == 1:
        vector = F.normalize(made[0].float(), dim=1)
        return vector, vector[..., None], vector
    vector, patches, mean = (F.normalize(each.float(), dim=1) for each in made)
    return vector, patches, mean


def _check(name: str, value: float, possible: bool, values: str) -> None:
    if not possible:
        raise MTAdaptError(f"ContrastiveBranch: {name}={value}; it has to be in {values}")
