"""What the backbones with experts have in common: experts in the place of dense layers, and the way of the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mmcv.cnn.bricks.transformer import FFN
from mmengine.model import BaseModule
from mmpretrain.models.utils import MultiheadAttention
from torch import Tensor, is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint

from mtadapt.errors import MTAdaptError
from mtadapt.models.moe import LayerExperts, MoEAttention, MoEBackbone, MoEMLP, Routes, plan_experts


def become(module: nn.Module, kind: type[nn.Module]) -> None:
    """Make a module one of a subclass of its class that differs in its methods alone.

    The constructors of mmpretrain name the classes of their blocks. What they built keeps its entries and its random
    weights this way, so a dense twin is the stock backbone from the first number on.
    """
    assert issubclass(kind, type(module)), f"{kind.__name__} is no subclass of {type(module).__name__}"
    module.__class__ = kind


def checkpointed(enabled: bool, function: Callable[..., Tensor], *args: Any) -> Tensor:
    """Call a function; when enabled, its activations are computed again in the backward pass and not kept."""
    if enabled and is_grad_enabled():
        return checkpoint(function, *args, use_reentrant=False)
    return function(*args)


def run_mlp(ffn: nn.Module, x: Tensor, routes: Routes, identity: Tensor) -> Tensor:
    """Run a block's MLP, be it dense or of experts, and add the identity."""
    if isinstance(ffn, MoEMLP):
        return ffn(x, routes, identity)
    return ffn(x, identity=identity)


class ExpertBlocks(MoEBackbone):
    """A mixin for backbones made of mmpretrain's blocks, which hold their MLP as ``ffn``."""

    def set_mlp_experts(
        self, blocks: Sequence[nn.Module], mlp_experts: Mapping | None, task_banks: Mapping[str, int] | None
    ) -> None:
        """Put experts in the place of dense MLPs.

        Args:
            blocks: all blocks with an MLP, in the order in which they run.
            mlp_experts: see :func:`mtadapt.models.moe.plan_experts`.
            task_banks: see :class:`mtadapt.models.moe.MoEMLP`.

        Raises:
            MTAdaptError: for a setting that is not possible.
        """
        for block, experts in zip(blocks, plan_experts("mlp_experts", mlp_experts, len(blocks)), strict=True):
            if experts is not None:
                block.ffn = self._mlp(block.ffn, experts, task_banks)

    def set_attention_experts(
        self, blocks: Sequence[nn.Module], attention_experts: Mapping | None, task_banks: Mapping[str, int] | None
    ) -> None:
        """Put mixtures of attention heads in the place of multi-head attention; the arguments are as for the MLPs."""
        plan = plan_experts("attention_experts", attention_experts, len(blocks))
        for block, experts in zip(blocks, plan, strict=True):
            if experts is not None:
                block.attn = self._attention(block.attn, experts, task_banks)

    def _mlp(self, ffn: FFN, experts: LayerExperts, task_banks: Mapping[str, int] | None) -> MoEMLP:
        name = type(self).__name__
        plain = type(ffn) is FFN and ffn.num_fcs == 2 and ffn.add_identity and isinstance(ffn.layers[0][1], nn.GELU)
        if not plain or any(each.p for each in ffn.modules() if isinstance(each, nn.Dropout)):
            raise MTAdaptError(
                f"{name}: mlp_experts takes the place of an MLP with two layers, GELU and no dropout; leave other "
                "settings of the FFN (drop_rate, ffn_cfgs, layer_cfgs) out"
            )
        hidden = ffn.feedforward_channels
        if hidden % experts.top_k:
            raise MTAdaptError(
                f"{name}: mlp_experts has top_k={experts.top_k}, which does not divide the {hidden} hidden units of "
                "the dense MLP; every expert gets hidden units / top_k"
            )
        return MoEMLP(ffn.embed_dims, hidden // experts.top_k, experts, self.tasks, task_banks, _drop_path(ffn))

    def _attention(
        self, attn: MultiheadAttention, experts: LayerExperts, task_banks: Mapping[str, int] | None
    ) -> MoEAttention:
        if attn.attn_drop or attn.proj_drop.p:
            raise MTAdaptError(
                f"{type(self).__name__}: attention_experts takes the place of attention without dropout; leave "
                "drop_rate and attn_drop_rate out"
            )
        dropout = dict(type="DropPath", drop_prob=getattr(attn.out_drop, "drop_prob", 0.0))
        return MoEAttention(attn.embed_dims, attn.head_dims, experts, self.tasks, task_banks, dropout)

    def train(self, mode: bool = True) -> ExpertBlocks:
        """Set the mode; unlike in mmpretrain the backbone itself is returned, as torch does."""
        super().train(mode)
        return self


class Stages(ExpertBlocks):
    """A mixin for backbones with stages: Swin and DaViT."""

    def run_stages(self, x: Tensor, hw_shape: tuple[int, int], routes: Routes) -> tuple[Tensor, ...]:
        """Run all stages on tokens ``(N, H * W, C)`` and give the maps ``(N, C_i, H_i, W_i)`` of ``out_indices``."""
        outs = []
        for i, stage in enumerate(self.stages):
            x, hw_shape = stage(x, hw_shape, self.out_after_downsample, routes)
            if i in self.out_indices:
                out = getattr(self, f"norm{i}")(x)
                out = out.view(-1, *hw_shape, self.num_features[i])
                outs.append(out.permute(0, 3, 1, 2).contiguous())
            if stage.downsample is not None and not self.out_after_downsample:
                x, hw_shape = stage.downsample(x, hw_shape)
        return tuple(outs)


class RoutedStage(BaseModule):
    """A mixin for the stages of Swin and DaViT, which hands the routes to the blocks."""

    def forward(
        self, x: Tensor, in_shape: tuple[int, int], do_downsample: bool, routes: Routes
    ) -> tuple[Tensor, tuple[int, int]]:
        """Run the blocks on the tokens ``(N, H * W, C)`` of a map of the size ``in_shape``, then downsample."""
        for block in self.blocks:
            x = block(x, in_shape, routes)
        if self.downsample is not None and do_downsample:
            return self.downsample(x, in_shape)
        return x, in_shape


def _drop_path(ffn: FFN) -> dict:
    return dict(type="DropPath", drop_prob=getattr(ffn.dropout_layer, "drop_prob", 0.0))
