"""LV-Adapter: language priors for every level of the features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mtadapt.errors import MTAdaptError
from mtadapt.models.losses import box_alignment_loss, map_alignment_loss
from mtadapt.models.text import LanguagePriors, TextEncoder, parse_prompts
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample

#: Keys ``(K, E)`` and gated values ``(K, C)`` of all tasks on one level.
Constants = tuple[Tensor, Tensor]


@MODELS.register_module()
class LVAdapter(BaseModule):
    """Give visual features the context of the class names that each task looks for.

    On every level the features are queries, and the text vectors of a task's classes are keys and values of a
    cross-attention, ``x' = x + sum over tasks of gate * attention(x, text)``. The attention logits are cosines over a
    temperature, so that they are the pixel-text score maps as well, and the alignment loss of each task (for
    :class:`~mtadapt.models.MultiTaskModel`, which calls :meth:`forward_with_scores`) teaches pixels to attend to
    their class. The shape is kept, so the adapter is also a plain neck of stock models, after FPN or before it.

    Ours, where the paper's text is not public: one head per task and level; a key and a value of zero beside the
    classes (as ``add_zero_attn`` of :class:`torch.nn.MultiheadAttention`), so that a pixel of no class takes no
    context; a gate for each task, level and channel.

    Args:
        in_channels: channels of each level, or one number for ``num_levels`` equal ones.
        prompts: task name to its class names in the order of the labels, or to a dictionary with ``classes`` and
            ``templates``, ``synonyms``, ``contexts``; see :class:`~mtadapt.models.text.TaskPrompts`.
        contexts: learnable contexts of the tasks whose prompts do not say, e.g. ``dict(length=8)``; None for the bare
            class names.
        text_encoder: config of a frozen :class:`~mtadapt.models.text.TextEncoder`.
        num_levels: how many levels an ``in_channels`` that is one number stands for; 5 by default.
        embed_channels: channels in which features and texts are compared.
        tau: temperature of the cosines.
        gate: value of the gates at the start.
        align_weight: factor of the alignment losses; one number or task name to number. 0 leaves the loss out.
        init_cfg: as in :class:`mmengine.model.BaseModule`.

    Raises:
        MTAdaptError: for a mistake in the prompts, the text encoder, the channels or the weights.

    Reference:
        Liang et al., Effective Adaptation in Multi-Task Co-Training for Unified Autonomous Driving, NeurIPS 2022;
        Rao et al., DenseCLIP, CVPR 2022 (gate, temperature, alignment losses and their weight).
    """

    is_adapter = True

    def __init__(
        self,
        in_channels: int | Sequence[int],
        prompts: Mapping[str, Sequence[str] | Mapping],
        text_encoder: dict,
        contexts: Mapping | None = None,
        num_levels: int | None = None,
        embed_channels: int = 128,
        tau: float = 0.07,
        gate: float = 1e-4,
        align_weight: float | Mapping[str, float] = 0.4,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.in_channels = [in_channels] * (num_levels or 5) if isinstance(in_channels, int) else list(in_channels)
        if num_levels not in (None, len(self.in_channels)):
            raise MTAdaptError(f"LVAdapter: in_channels={self.in_channels} and num_levels={num_levels}; leave one out")
        if tau <= 0:
            raise MTAdaptError(f"LVAdapter: tau={tau}; the temperature must be above 0")
        if embed_channels < 1:
            raise MTAdaptError(f"LVAdapter: embed_channels={embed_channels}; write a number above 0")
        tables = parse_prompts(prompts)
        self.language = LanguagePriors(
            {task: {"contexts": contexts, **table} for task, table in tables.items()}, text_encoder
        )
        self.classes = self.language.classes
        self.tau = tau
        weights = align_weight if isinstance(align_weight, Mapping) else dict.fromkeys(self.classes, align_weight)
        unknown = set(weights) - set(self.classes)
        if unknown:
            raise MTAdaptError(f"LVAdapter: align_weight of {sorted(unknown)}; prompts are of {[*self.classes]}")
        if any(weight < 0 for weight in weights.values()):
            raise MTAdaptError(f"LVAdapter: align_weight={align_weight}; a weight cannot be below 0")
        self.align_weights = dict(weights)
        text_dims = self.language.embed_dims
        self.key = nn.Linear(text_dims, embed_channels, bias=False)
        self.queries = nn.ModuleList(
            nn.Conv2d(channels, embed_channels, 1, bias=False) for channels in self.in_channels
        )
        self.values = nn.ModuleList(nn.Linear(text_dims, channels) for channels in self.in_channels)
        self.gates = nn.ParameterList(
            nn.Parameter(torch.full((len(self.classes), channels), gate)) for channels in self.in_channels
        )
        self._folded: list[Constants] | None = None
        self._register_load_state_dict_pre_hook(self._prepare_load)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the features with their language contexts.

        Args:
            features: maps ``(N, C_i, H_i, W_i)``.

        Returns:
            Maps of the same shapes.
        """
        return self.forward_with_scores(features)[0]

    def forward_with_scores(self, features: Sequence[Tensor]) -> tuple[tuple[Tensor, ...], list[dict[str, Tensor]]]:
        """Return what :meth:`forward` gives, and the score maps of each level.

        Args:
            features: maps ``(N, C_i, H_i, W_i)``.

        Returns:
            The features, and for each level task name to the cosines of its classes over the temperature,
            ``(N, K, H_i, W_i)``.

        Raises:
            MTAdaptError: when the levels or their channels are not those of ``in_channels``.
        """
        channels = [level.shape[1] for level in features]
        if channels != self.in_channels:
            raise MTAdaptError(f"LVAdapter: features have channels {channels}, in_channels is {self.in_channels}")
        outputs, scores = [], []
        for level, query, (keys, values) in zip(features, self.queries, self._constants(), strict=True):
            queries = query(level)
            # The square of a half-precision norm can overflow, so norm and logits are taken in full precision.
            norm = torch.linalg.vector_norm(
                queries, dim=1, keepdim=True, dtype=torch.promote_types(queries.dtype, torch.float32)
            )
            logits = F.conv2d(queries, keys[:, :, None, None].to(queries)) / (norm.clamp(min=1e-6) * self.tau)
            split = logits.split([len(names) + 1 for names in self.classes.values()], dim=1)
            attention = torch.cat([part.softmax(dim=1) for part in split], dim=1)
            attention = attention.to(level.dtype)
            outputs.append(level + F.conv2d(attention, values.T[:, :, None, None].to(attention)))
            scores.append({task: part[:, :-1] for task, part in zip(self.classes, split, strict=True)})
        return tuple(outputs), scores

    def align_loss(
        self, task: str, scores: Sequence[dict[str, Tensor]], samples: Sequence[MultiTaskDataSample]
    ) -> dict:
        """The alignment loss of one task, in which every cell of every level counts the same.

        Ours: with an equal weight for each level, the few cells of the coarse ones, whose labels are rough, would weigh
        as much as the many of the finest.

        Args:
            task: the task.
            scores: the score maps, whose rows are those of the samples.
            samples: samples that are labelled for the task, after the data preprocessor.

        Returns:
            ``loss_align``, or nothing for a task without prompts, with weight 0, or without maps or boxes.
        """
        weight = self.align_weights.get(task, 0.0)
        if task not in self.classes or not weight:
            return {}
        natives = [sample.task(task) for sample in samples]
        levels = [level[task] for level in scores]
        if "gt_sem_seg" in natives[0]:
            maps = torch.cat([native.gt_sem_seg.data for native in natives])
            losses = [map_alignment_loss(level, maps) for level in levels]
        elif "gt_instances" in natives[0]:
            boxes = [native.gt_instances for native in natives]
            ignored = [native.ignored_instances for native in natives]
            size = samples[0].batch_input_shape
            img_shapes = [sample.img_shape for sample in samples]
            losses = [box_alignment_loss(level, boxes, ignored, size, img_shapes) for level in levels]
        else:
            return {}
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        total = sum(loss * (count / sum(cells)) for loss, count in zip(losses, cells, strict=True))
        return dict(loss_align=total * weight)

    def set_classes(self, task: str, names: Sequence[str], encoder: TextEncoder | None = None) -> None:
        """Look for other names at inference; the heads keep their classes.

        See :meth:`mtadapt.models.text.LanguagePriors.set_classes`.
        """
        self.language.set_classes(task, names, encoder)
        self._folded = None

    def train(self, mode: bool = True) -> LVAdapter:
        """Set the mode; what was folded for inference is computed anew."""
        self._folded = None
        super().train(mode)
        return self

    def _apply(self, *args, **kwargs) -> LVAdapter:  # type: ignore[no-untyped-def]
        self._folded = None
        return super()._apply(*args, **kwargs)

    def _prepare_load(self, state_dict: dict[str, Tensor], prefix: str, *_: object) -> None:
        """Forget what was folded, and put the gates of older checkpoints in the order of the tasks here.

        The rows of the gates have no names. They are in the order of the alphabet now, and were in that of the config.
        The entries of the texts tell in which order they were saved.
        """
        self._folded = None
        texts = f"{prefix}language.texts_"
        saved = [name[len(texts) :] for name in state_dict if name.startswith(texts)]
        own = [*self.classes]
        if saved == own or sorted(saved) != sorted(own):
            return
        rows = [saved.index(task) for task in own]
        for level in range(len(self.gates)):
            name = f"{prefix}gates.{level}"
            if name in state_dict and len(state_dict[name]) == len(rows):
                state_dict[name] = state_dict[name][rows]
        for task in own:
            # Behind each other in the new order, so that a second load of the same dictionary finds it.
            state_dict[texts + task] = state_dict.pop(texts + task)

    def _constants(self) -> list[Constants]:
        """Keys and values of each level; at inference they are computed once."""
        if self.training or torch.is_grad_enabled():
            return self._project()
        if self._folded is None:
            self._folded = self._project()
        return self._folded

    def _project(self) -> list[Constants]:
        """Project the text vectors, with a row of zeros behind each task's classes."""
        texts = self.language()
        keys = torch.cat([F.pad(F.normalize(self.key(text), dim=1), (0, 0, 0, 1)) for text in texts.values()])
        levels = []
        for value, gates in zip(self.values, self.gates, strict=True):
            rows = [F.pad(gate * value(text), (0, 0, 0, 1)) for gate, text in zip(gates, texts.values(), strict=True)]
            levels.append((keys, torch.cat(rows)))
        return levels
