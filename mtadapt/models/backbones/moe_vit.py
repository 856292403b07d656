"""A plain vision transformer whose MLPs and attention heads may be experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil, isqrt
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmpretrain.models.backbones import vision_transformer
from mmpretrain.models.utils import MultiheadAttention, resize_pos_embed
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.backbones.moe_blocks import ExpertBlocks, become, checkpointed, run_mlp
from mtadapt.models.moe import MoEAttention, MoEMLP, Route, Routes
from mtadapt.registry import MODELS


@MODELS.register_module()
class MoEViT(ExpertBlocks, vision_transformer.VisionTransformer):
    """Vision transformer with a mixture of experts in MLPs and attention, and with windows for large images.

    Without experts and with ``window_size=None`` this is mmpretrain's VisionTransformer, with the same entries and the
    same numbers. Its checkpoints load in all cases: position embeddings are resized, a class token that is not used is
    left out, and dense layers become experts, see :mod:`mtadapt.models.moe.upcycling`. A layer with experts has no
    layer scale; that of a checkpoint is multiplied into its weights.

    For detection and segmentation :class:`~mtadapt.models.SimpleFeaturePyramid` makes the levels. Mod-Squad's base
    model is ``arch='base', attention_experts=dict(num_experts=24, top_k=12, every=2, offset=0),
    mlp_experts=dict(num_experts=16, top_k=4, every=2, offset=1)``.

    Ours: padding of windows is masked, where ViTDet attends to it, so a map inside one window gives what global
    attention gives; and windows are no larger than the map.

    Args:
        arch: ``deit-small`` (ViT-S: 384 channels; mmpretrain's ``small`` has 768), ``base``, ... or a dictionary with
            ``embed_dims``, ``num_layers``, ``num_heads`` and ``feedforward_channels``.
        tasks: names of the tasks, which each have routers.
        mlp_experts: None for dense MLPs, or ``dict(num_experts=..., top_k=4, every=1, offset=every - 1)``, see
            :func:`mtadapt.models.moe.plan_experts`.
        attention_experts: the same for attention heads.
        task_banks: number of banks of experts, from the first one, that a task's routers see; all by default.
        mutual_information: ``weight`` of the loss and ``momentum`` of its statistics.
        window_size: side of the windows of attention, in tokens; None for global attention in all layers.
        global_indices: layers with global attention all the same; by default the last layer of each quarter.
        out_indices: layers whose outputs are given; -1 is the last.
        out_type: ``featmap``, or another of mmpretrain's.
        with_cls_token: have a class token; only without windows.
        with_cp: compute the activations of every layer again in the backward pass.
        settings: those of :class:`mmpretrain.models.backbones.VisionTransformer`.

    Raises:
        MTAdaptError: for settings of the experts or windows that are not possible; at loading, for a position embedding
            whose grid cannot be told.

    Reference:
        An Image is Worth 16x16 Words (arXiv 2010.11929); Mod-Squad (CVPR 2023); windows as in Exploring Plain Vision
        Transformer Backbones for Object Detection (arXiv 2203.16527).
    """

    def __init__(
        self,
        arch: str | dict = "deit-small",
        tasks: Sequence[str] = ("cls",),
        mlp_experts: Mapping | None = None,
        attention_experts: Mapping | None = None,
        task_banks: Mapping[str, int] | None = None,
        mutual_information: Mapping[str, float] | None = None,
        window_size: int | None = 14,
        global_indices: Sequence[int] | None = None,
        out_indices: int | Sequence[int] = -1,
        out_type: str = "featmap",
        with_cls_token: bool = False,
        with_cp: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(
            arch=arch,
            out_indices=out_indices if isinstance(out_indices, int) else list(out_indices),
            out_type=out_type,
            with_cls_token=with_cls_token,
            **settings,
        )
        self.set_tasks(tasks, mutual_information)
        self.with_cp = with_cp
        self.window_size = window_size
        self.global_indices = self._check_windows(global_indices)
        for layer in self.layers:
            become(layer, _Layer)
            become(layer.attn, _Attention)
        self.set_attention_experts(self.layers, attention_experts, task_banks)
        self.set_mlp_experts(self.layers, mlp_experts, task_banks)
        if self.frozen_stages > 0:
            self._freeze_stages()

    def forward(self, x: Tensor, routes: Route | Sequence[Route] | None = None) -> tuple[Tensor, ...]:
        """Give the outputs of the chosen layers.

        Args:
            x: images ``(N, 3, H, W)`` of any size.
            routes: one task (or mixture of tasks) for all images, or one an image; needed where there are several
                tasks.

        Returns:
            Maps ``(N, C, H / 16, W / 16)``, with ``out_type='featmap'`` and patches of 16.
        """
        passing = self.begin(x, routes)
        x, resolution = self.patch_embed(x)
        if self.cls_token is not None:
            x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + resize_pos_embed(
            self.pos_embed,
            self.patch_resolution,
            resolution,
            mode=self.interpolate_mode,
            num_extra_tokens=self.num_extra_tokens,
        )
        x = self.pre_norm(self.drop_after_pos(x))
        windows = Windows.of(resolution, self.window_size, x) if self.window_size else None
        outs = []
        for i, layer in enumerate(self.layers):
            x = checkpointed(self.with_cp, layer, x, passing, None if i in self.global_indices else windows)
            if i == len(self.layers) - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(self._format_output(x, resolution))
        self.finish(passing)
        return tuple(outs)

    def train(self, mode: bool = True) -> MoEViT:
        """Set the mode; frozen layers stay in evaluation mode, which mmpretrain's are in until the first call only."""
        super().train(mode)
        if self.frozen_stages > 0:
            self._freeze_stages()
        return self

    def _check_windows(self, global_indices: Sequence[int] | None) -> frozenset[int]:
        size = self.window_size
        if size is not None and (size < 1 or self.with_cls_token):
            raise MTAdaptError(
                f"MoEViT: window_size={size}, with_cls_token={self.with_cls_token}; windows are of at least one token "
                "and have no class token: write window_size=None or with_cls_token=False"
            )
        if global_indices is None:
            global_indices = [ceil(self.num_layers * part / 4) - 1 for part in range(1, 5)]
        if not all(0 <= index < self.num_layers for index in global_indices):
            raise MTAdaptError(
                f"MoEViT: global_indices={list(global_indices)}; the layers are 0 to {self.num_layers - 1}"
            )
        return frozenset(global_indices)

    def _prepare_pos_embed(self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any) -> None:
        """Hook before loading, which the stock constructor registers."""
        name = f"{prefix}pos_embed"
        if not self.with_cls_token:
            state_dict.pop(f"{prefix}cls_token", None)
        if name not in state_dict or state_dict[name].shape == self.pos_embed.shape:
            return
        given = state_dict[name]
        # Beside the square grid there may be a class token and one for distillation.
        side = isqrt(given.shape[1])
        extra = given.shape[1] - side * side
        if given.shape[2] != self.embed_dims or not self.num_extra_tokens <= extra <= 2:
            raise MTAdaptError(
                f"{name}: the checkpoint has the shape {tuple(given.shape)}, the model {tuple(self.pos_embed.shape)}; "
                "only square grids of the same channels with at most two extra tokens can be resized"
            )
        tokens = torch.cat([given[:, : self.num_extra_tokens], given[:, extra:]], dim=1)
        state_dict[name] = resize_pos_embed(
            tokens, (side, side), self.patch_resolution, self.interpolate_mode, self.num_extra_tokens
        )
        print_log(f"{name}: {extra} extra tokens and {side}x{side} to {tuple(self.pos_embed.shape)}", logger="current")


class Windows:
    """Windows of tokens of a map, with padding at the bottom and the right.

    Args:
        resolution: height and width of the map, in tokens.
        size: height and width of a window.
        num_images: N.
        device: where the tokens are.

    Attributes:
        mask: ``(N * windows, 1, 1, n)`` booleans, false for padding; None where there is none.
    """

    def __init__(
        self, resolution: tuple[int, int], size: tuple[int, int], num_images: int, device: torch.device
    ) -> None:
        (self._height, self._width), self._size = resolution, size
        self._rows, self._columns = ceil(self._height / size[0]), ceil(self._width / size[1])
        self._pad = (self._rows * size[0] - self._height, self._columns * size[1] - self._width)
        self.mask: Tensor | None = None
        if any(self._pad):
            real = self.partition(torch.ones(1, self._height * self._width, 1, device=device)) > 0
            self.mask = real[:, None, None, :, 0].repeat(num_images, 1, 1, 1)

    @classmethod
    def of(cls, resolution: tuple[int, int], size: int, x: Tensor) -> Windows | None:
        """Make the windows of a batch of tokens ``(N, L, C)``; None where one window holds the map."""
        if max(resolution) <= size:
            return None
        height, width = min(size, resolution[0]), min(size, resolution[1])
        return cls(resolution, (height, width), x.shape[0], x.device)

    def partition(self, x: Tensor) -> Tensor:
        """Cut tokens ``(N, L, C)`` into windows ``(N * windows, n, C)``."""
        x = x.unflatten(1, (self._height, self._width))
        if any(self._pad):
            x = F.pad(x, (0, 0, 0, self._pad[1], 0, self._pad[0]))
        x = x.unflatten(1, (self._rows, self._size[0])).unflatten(3, (self._columns, self._size[1]))
        return x.transpose(2, 3).flatten(3, 4).flatten(0, 2)

    def reverse(self, x: Tensor) -> Tensor:
        """Put windows ``(N * windows, n, C)`` together to tokens ``(N, L, C)``."""
        x = x.unflatten(1, self._size).unflatten(0, (-1, self._rows, self._columns))
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        return x[:, : self._height, : self._width].flatten(1, 2)


class _Layer(vision_transformer.TransformerEncoderLayer):
    def init_weights(self) -> None:
        """As in mmpretrain, but layers with experts keep their own beginning."""
        if isinstance(self.ffn, MoEMLP):
            BaseModule.init_weights(self)
        else:
            super().init_weights()

    def forward(self, x: Tensor, routes: Routes, windows: Windows | None) -> Tensor:
        if isinstance(self.attn, MoEAttention):
            how = () if windows is None else (windows.partition, windows.reverse, windows.mask)
            x = x + self.attn(self.ln1(x), routes, *how)
        else:
            x = x + self.attn(self.ln1(x), windows)
        return run_mlp(self.ffn, self.ln2(x), routes, identity=x)


class _Attention(MultiheadAttention):
    def forward(self, x: Tensor, windows: Windows | None = None) -> Tensor:
        if windows is None:
            return super().forward(x)
        qkv = windows.partition(self.qkv(x)).unflatten(2, (3, self.num_heads, self.head_dims))
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        drop = self.attn_drop if self.training else 0.0
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=windows.mask, dropout_p=drop)
        x = self.proj(windows.reverse(x.transpose(1, 2).flatten(2)))
        return self.out_drop(self.gamma1(self.proj_drop(x)))
