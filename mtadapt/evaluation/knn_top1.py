"""How well the nearest neighbours of an image tell its class: a probe of the embeddings that needs no training."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.evaluation.multi_label_map import ground_truth, image_name, label_names, task_meta
from mtadapt.registry import METRICS

#: Images whose similarities to all others are held at a time: 200 MB for 50,000 images.
_CHUNK = 1024


@METRICS.register_module()
class KNNTop1(BaseMetric):
    """Top-1 accuracy of a weighted k-nearest-neighbour classifier on the images' embeddings, in percent.

    The ``k`` images of the highest cosine similarity ``s`` vote for their class with the weight ``exp(s / T)``.

    Ours: the neighbours are the other images of the validation set (leave one out), where the papers use the training
    set: so a validation costs no pass over the training images, and the numbers compare within a validation set only.
    Ours: the class of an image is the label that it has of an exclusive group, such as ``timeofday=night`` of
    ``timeofday``. Images with none or several labels of the group are left out. With fewer than two images or classes
    left there is nothing to tell apart: a warning, and no number. With fewer than ``k`` other images all of them vote.

    The number is ``probe/knn_<group>``. Works alone in an evaluator and among the metrics of the task ``mlc`` in
    ``MultiTaskMetric``, whose name for it is ``mlc/knn_<group>``.

    Args:
        group: Name of the group: what stands before ``=`` in the names of its labels.
        k: Neighbours that vote.
        temperature: ``T``.
        collect_device: See ``BaseMetric``.
        prefix: See ``BaseMetric``.
        collect_dir: See ``BaseMetric``.

    Raises:
        MTAdaptError: If ``k`` or ``temperature`` is not positive, no label is of the group, or a sample has no
            embedding.

    Reference:
        Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance Discrimination", section 3.4; k = 20 and
        T = 0.07 as in Caron et al., "Emerging Properties in Self-Supervised Vision Transformers".
    """

    default_prefix = "probe"

    def __init__(
        self,
        group: str,
        k: int = 20,
        temperature: float = 0.07,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if not isinstance(k, int) or k < 1:
            raise MTAdaptError(f"k={k!r} of KNNTop1: give a whole number of neighbours, at least 1")
        if not temperature > 0:
            raise MTAdaptError(f"temperature={temperature!r} of KNNTop1: give a number above 0")
        self.group = group
        self.k = k
        self.temperature = temperature
        self._members: np.ndarray | None = None

    @property
    def dataset_meta(self) -> dict | None:
        """Meta of the dataset; a group that no label has is refused when it is set, before the first validation."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, dataset_meta: dict) -> None:
        self._members = group_members(dataset_meta, self.group)
        self._dataset_meta = dataset_meta

    def process(self, data_batch: Any, data_samples: Sequence[Any]) -> None:
        """Record the embedding and the class of every image.

        Args:
            data_batch: Not used.
            data_samples: Dicts of ``MultiTaskDataSample`` with the tensor ``embedding``, ``(C,)``, and ``mlc`` with
                ``gt_score`` ``(K,)``, or its native sample with both.
        """
        names = label_names(self.dataset_meta, type(self).__name__)
        assert self._members is not None
        for sample in data_samples:
            embedding = sample.get("embedding")
            if embedding is None:
                raise MTAdaptError(
                    f"{image_name(sample)}: the model returned no 'embedding': KNNTop1 probes models that predict "
                    "one, such as HeuristicPretrainer"
                )
            present = np.flatnonzero(ground_truth(sample, names)[self._members] == 1)
            # A copy, because a slice of the batch's tensor would carry the whole batch from process to process.
            vector = torch.as_tensor(embedding).detach().float().cpu().flatten().numpy().copy()
            self.results.append((vector, int(present[0]) if len(present) == 1 else -1))

    def compute_metrics(self, results: list[tuple[np.ndarray, int]]) -> dict[str, float]:
        """Compute the accuracy.

        Args:
            results: Embedding and class of every image, -1 for one that is left out.

        Returns:
            dict: Name -> percent.
        """
        counted = [(vector, label) for vector, label in results if label >= 0]
        labels = torch.tensor([label for _, label in counted], dtype=torch.int64)
        if len(labels.unique()) < 2:
            print_log(
                f"KNNTop1 of the group {self.group!r}: {len(counted)} of {len(results)} images have one label of it, "
                f"of {len(labels.unique())} classes; it needs two, so there is no number",
                logger="current",
                level=logging.WARNING,
            )
            return {}
        embeddings = torch.from_numpy(np.stack([vector for vector, _ in counted]))
        correct = predict_left_out(embeddings, labels, self.k, self.temperature) == labels
        share = correct.double().mean() if embeddings.isfinite().all() else torch.tensor(torch.nan)
        return {f"knn_{self.group}": 100 * share.item()}


def predict_left_out(embeddings: Tensor, labels: Tensor, k: int, temperature: float, chunk: int = _CHUNK) -> Tensor:
    """Class of every image by the weighted votes of its nearest others.

    Args:
        embeddings: ``(N, C)`` float, at least two.
        labels: ``(N,)`` int64, classes from 0.
        k: Neighbours that vote, or all others if there are fewer.
        temperature: Of the votes, ``exp(similarity / temperature)``.
        chunk: Images whose similarities to all others are held at a time.

    Returns:
        torch.Tensor: ``(N,)`` int64; of classes with equal votes the first.
    """
    vectors = F.normalize(embeddings, dim=1)
    k = min(k, len(vectors) - 1)
    predicted = []
    for start in range(0, len(vectors), chunk):
        similarity = vectors[start : start + chunk] @ vectors.T
        rows = torch.arange(len(similarity))
        similarity[rows, start + rows] = -torch.inf
        nearest, neighbours = similarity.topk(k, dim=1)
        # Relative to the nearest, which changes no order and keeps small temperatures from overflowing.
        weights = ((nearest - nearest[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(similarity), int(labels.max()) + 1)
        predicted.append(votes.scatter_add_(1, labels[neighbours], weights).argmax(1))
    return torch.cat(predicted)


def group_members(dataset_meta: Mapping[str, Any] | None, group: str) -> np.ndarray:
    """Positions of the labels ``<group>=...`` among all labels.

    Raises:
        MTAdaptError: naming the groups that there are, when no label is of this one.
    """
    names = label_names(dataset_meta, "KNNTop1")
    members = [number for number, name in enumerate(names) if name.startswith(f"{group}=")]
    if members:
        return np.array(members)
    groups = list(dict.fromkeys(name.partition("=")[0] for name in names if "=" in name))
    known = f"exclusive groups are {', '.join(groups)}" if groups else "no label is of an exclusive group"
    what = "no label is named"
    if group in (task_meta(dataset_meta).get("kinds") or {}):
        what = "that is a kind, of whose labels an image may have several, and no label is named"
    raise MTAdaptError(f"group={group!r} of KNNTop1: {what} '{group}=...'; {known}")
