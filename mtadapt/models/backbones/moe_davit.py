"""DaViT whose MLPs may consist of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmpretrain.models.backbones import davit
from torch import Tensor

from mtadapt.models.backbones.moe_blocks import RoutedStage, Stages, become, checkpointed, run_mlp
from mtadapt.models.moe import Route, Routes
from mtadapt.registry import MODELS


@MODELS.register_module()
class MoEDaViT(Stages, davit.DaViT):
    """DaViT with a mixture of experts in the MLPs.

    A block of DaViT has two MLPs, one after attention in windows and one after attention among channels. ``every`` and
    ``offset`` of ``mlp_experts`` count all of them in the order in which they run. Without ``mlp_experts`` this is
    mmpretrain's DaViT, with the same entries and the same numbers, and its checkpoints load in both cases: those of
    dense MLPs become experts, see :mod:`mtadapt.models.moe.upcycling`.

    The models of the paper are ``arch='tiny'`` with ``mlp_experts=dict(num_experts=64)``, ``'small'`` with
    ``dict(num_experts=32)`` and ``'base'`` with ``dict(num_experts=16, every=2)``; ``top_k`` is 4. Ours: the base
    model's alternate layers are the MLPs after attention among channels, which ``every=2`` takes.

    Ours: between stages a map of odd height or width is padded with zeros at the bottom and the right, as in the
    authors' DaViT. mmpretrain drops the last row or fails there, so the two differ at such sizes.

    Args:
        arch: ``tiny``, ``small``, ``base``, ... or a dictionary with ``embed_dims``, ``depths`` and ``num_heads``.
        tasks: names of the tasks, which each have routers.
        mlp_experts: None for dense MLPs, or ``dict(num_experts=..., top_k=4, every=1, offset=every - 1)``, see
            :func:`mtadapt.models.moe.plan_experts`.
        task_banks: number of banks of experts, from the first one, that a task's routers see; all by default.
        mutual_information: ``weight`` of the loss and ``momentum`` of its statistics.
        out_indices: the stages whose maps are given; strides are 4, 8, 16 and 32.
        pad_small_map: pad maps smaller than a window, as images of any size need.
        with_cp: compute the activations of every block again in the backward pass.
        settings: those of :class:`mmpretrain.models.backbones.DaViT`.

    Raises:
        MTAdaptError: for settings of the experts that are not possible.

    Reference:
        DaViT (arXiv 2204.03645); An Efficient General-Purpose Modular Vision Model via Multi-Task Heterogeneous
        Training (arXiv 2306.17165).
    """

    def __init__(
        self,
        arch: str | dict = "tiny",
        tasks: Sequence[str] = ("cls",),
        mlp_experts: Mapping | None = None,
        task_banks: Mapping[str, int] | None = None,
        mutual_information: Mapping[str, float] | None = None,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        pad_small_map: bool = True,
        with_cp: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(arch=arch, out_indices=out_indices, pad_small_map=pad_small_map, with_cp=with_cp, **settings)
        self.set_tasks(tasks, mutual_information)
        blocks: list[_SpatialBlock | _ChannelBlock] = []
        for stage in self.stages:
            become(stage, _Stage)
            if stage.downsample is not None:
                become(stage.downsample, _DownSample)
            for block in stage.blocks:
                become(block, _Block)
                become(block.spatial_block, _SpatialBlock)
                become(block.channel_block, _ChannelBlock)
                # mmpretrain never checkpoints this half.
                block.channel_block.with_cp = block.spatial_block.with_cp
                blocks += [block.spatial_block, block.channel_block]
        self.set_mlp_experts(blocks, mlp_experts, task_banks)
        self._freeze_stages()

    def forward(self, x: Tensor, routes: Route | Sequence[Route] | None = None) -> tuple[Tensor, ...]:
        """Give the maps of the chosen stages, finest first.

        Args:
            x: images ``(N, 3, H, W)``.
            routes: one task (or mixture of tasks) for all images, or one an image; needed where there are several
                tasks.
        """
        passing = self.begin(x, routes)
        x, hw_shape = self.patch_embed(x)
        outs = self.run_stages(x, hw_shape, passing)
        self.finish(passing)
        return outs


class _Stage(RoutedStage, davit.DaViTBlockSequence):
    pass


class _Block(davit.DaViTBlock):
    def forward(self, x: Tensor, hw_shape: tuple[int, int], routes: Routes) -> Tensor:
        return self.channel_block(self.spatial_block(x, hw_shape, routes), hw_shape, routes)


class _SpatialBlock(davit.SpatialBlock):
    def forward(self, x: Tensor, hw_shape: tuple[int, int], routes: Routes) -> Tensor:
        return checkpointed(self.with_cp, self._run, x, hw_shape, routes)

    def _run(self, x: Tensor, hw_shape: tuple[int, int], routes: Routes) -> Tensor:
        x = self.cpe1(x, hw_shape)
        x = self.attn(self.norm1(x), hw_shape) + x
        x = self.cpe2(x, hw_shape)
        return run_mlp(self.ffn, self.norm2(x), routes, identity=x)


class _ChannelBlock(davit.ChannelBlock):
    def forward(self, x: Tensor, hw_shape: tuple[int, int], routes: Routes) -> Tensor:
        return checkpointed(self.with_cp, self._run, x, hw_shape, routes)

    def _run(self, x: Tensor, hw_shape: tuple[int, int], routes: Routes) -> Tensor:
        x = self.cpe1(x, hw_shape)
        x = self.attn(self.norm1(x)) + x
        x = self.cpe2(x, hw_shape)
        return run_mlp(self.ffn, self.norm2(x), routes, identity=x)


class _DownSample(davit.DaViTDownSample):
    def forward(self, x: Tensor, input_size: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
        x = x if self.norm is None else self.norm(x)
        x = x.reshape(x.shape[0], *input_size, -1).permute(0, 3, 1, 2).contiguous()
        if self.adaptive_padding is not None:
            x = self.adaptive_padding(x)
        x = self.projection(x)
        return x.flatten(2).transpose(1, 2), (x.shape[2], x.shape[3])
