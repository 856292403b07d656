"""Swin Transformer whose MLPs may consist of experts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.logging import print_log
from mmpretrain.models.backbones import swin_transformer
from mmpretrain.models.utils import resize_pos_embed
from torch import Tensor

from mtadapt.models.backbones.moe_blocks import RoutedStage, Stages, become, checkpointed, run_mlp
from mtadapt.models.moe import Route, Routes
from mtadapt.models.relative_position import resize_tables
from mtadapt.registry import MODELS


@MODELS.register_module()
class MoESwin(Stages, swin_transformer.SwinTransformer):
    """Swin Transformer with a mixture of experts in the MLPs.

    Without ``mlp_experts`` this is mmpretrain's Swin, with the same entries and the same numbers, and its checkpoints
    load in both cases: those of dense MLPs become experts, see :mod:`mtadapt.models.moe.upcycling`.

    Ours: for another window size the tables of relative positions are resized with bicubic interpolation, as mmdet
    does; mmpretrain's own way needs a function that SciPy has removed.

    Args:
        arch: ``tiny``, ``small``, ``base``, ``large`` or a dictionary with ``embed_dims``, ``depths`` and
            ``num_heads``.
        tasks: names of the tasks, which each have routers.
        mlp_experts: None for dense MLPs, or ``dict(num_experts=..., top_k=4, every=1, offset=every - 1)``, see
            :func:`mtadapt.models.moe.plan_experts`.
        task_banks: number of banks of experts, from the first one, that a task's routers see; all by default.
        mutual_information: ``weight`` of the loss and ``momentum`` of its statistics.
        out_indices: the stages whose maps are given; strides are 4, 8, 16 and 32.
        pad_small_map: pad maps smaller than a window, as images of any size need.
        with_cp: compute the activations of every block again in the backward pass.
        settings: those of :class:`mmpretrain.models.backbones.SwinTransformer`.

    Raises:
        MTAdaptError: for settings of the experts that are not possible; at loading, when a table of relative positions
            has another number of heads.

    Reference:
        Swin Transformer (arXiv 2103.14030); experts as in arXiv 2306.17165.
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
        for stage in self.stages:
            become(stage, _Stage)
            for block in stage.blocks:
                become(block, _Block)
        blocks = [block for stage in self.stages for block in stage.blocks]
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
        if self.use_abs_pos_embed:
            x = x + resize_pos_embed(
                self.absolute_pos_embed,
                self.patch_resolution,
                hw_shape,
                self.interpolate_mode,
                self.num_extra_tokens,
            )
        outs = self.run_stages(self.drop_after_pos(x), hw_shape, passing)
        self.finish(passing)
        return outs

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # Entries of mmpretrain's first checkpoints, which it renames for its own class alone.
        for key in [key for key in state_dict if key.startswith(prefix)]:
            name = key[len(prefix) :]
            if name.startswith("norm."):
                state_dict[f"{prefix}norm{len(self.stages) - 1}.{name[5:]}"] = state_dict.pop(key)
            elif name.endswith("attn_mask"):
                del state_dict[key]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _prepare_relative_position_bias_table(
        self, state_dict: dict[str, Tensor], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Hook before loading, which the stock constructor registers."""
        for key, (old, new) in resize_tables(state_dict, self.state_dict(), prefix).items():
            print_log(f"{prefix}{key}: resized from {old} to {new} positions", logger="current")


class _Stage(RoutedStage, swin_transformer.SwinBlockSequence):
    pass


class _Block(swin_transformer.SwinBlock):
    def forward(self, x: Tensor, hw_shape: tuple[int, int], routes: Routes) -> Tensor:
        return checkpointed(self.with_cp, self._run, x, hw_shape, routes)

    def _run(self, x: Tensor, hw_shape: tuple[int, int], routes: Routes) -> Tensor:
        x = self.attn(self.norm1(x), hw_shape) + x
        return run_mlp(self.ffn, self.norm2(x), routes, identity=x)
