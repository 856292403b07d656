"""Names of vision transformers: ViT, DeiT, MAE, DINO, DINOv2, BEiT, and the visual towers of CLIP.

A file does not tell what has no entries. For the same features mmpretrain's VisionTransformer needs ``pre_norm=True``
and ``norm_cfg=dict(type='LN', eps=1e-5)`` for CLIP, and ``layer_cfgs=dict(act_cfg=dict(type='mmpretrain.QuickGELU'))``
for those towers of CLIP that were trained with it: OpenAI's and open_clip's ``-quickgelu``.
"""

from __future__ import annotations

from mtadapt.zoo.formats.naming import Change, Naming, Rule, same

_LAYER = "layers.{n}"


def _layers(prefix: str, names: dict[str, str]) -> tuple[Rule, ...]:
    return tuple(Rule(f"{prefix}.{theirs}", f"{_LAYER}.{ours}") for theirs, ours in names.items())


_TIMM_LAYER = {
    "norm1.{p}": "ln1.{p}",
    "norm2.{p}": "ln2.{p}",
    "mlp.fc1.{p}": "ffn.layers.0.0.{p}",
    "mlp.fc2.{p}": "ffn.layers.1.{p}",
    # The gated MLP of DINOv2's giant model.
    "mlp.w12.{p}": "ffn.w12.{p}",
    "mlp.w3.{p}": "ffn.w3.{p}",
    "ls1.gamma": "attn.gamma1.weight",
    "ls2.gamma": "ffn.gamma2.weight",
    # BEiT's own layer scale.
    "gamma_1": "gamma_1",
    "gamma_2": "gamma_2",
    "attn.{rest}": "attn.{rest}",
}
_TIMM_OUTSIDE = (
    *same("cls_token", "dist_token", "pos_embed", "mask_token", "rel_pos_bias.{p}"),
    Rule("reg_token", "register_tokens"),
    Rule("register_tokens", "register_tokens"),
    Rule("patch_embed.proj.{p}", "patch_embed.projection.{p}"),
    Rule("norm_pre.{p}", "pre_norm.{p}"),
    Rule("norm.{p}", "ln1.{p}"),
    Rule("fc_norm.{p}", "ln2.{p}"),
)

_TORCHVISION_LAYER = {
    "ln_1.{p}": "ln1.{p}",
    "ln_2.{p}": "ln2.{p}",
    "self_attention.in_proj_weight": "attn.qkv.weight",
    "self_attention.in_proj_bias": "attn.qkv.bias",
    "self_attention.out_proj.{p}": "attn.proj.{p}",
    "mlp.0.{p}": "ffn.layers.0.0.{p}",
    "mlp.3.{p}": "ffn.layers.1.{p}",
    # Before torchvision 0.14.
    "mlp.linear_1.{p}": "ffn.layers.0.0.{p}",
    "mlp.linear_2.{p}": "ffn.layers.1.{p}",
}
_TORCHVISION_OUTSIDE = (
    Rule("class_token", "cls_token"),
    Rule("conv_proj.{p}", "patch_embed.projection.{p}"),
    Rule("encoder.pos_embedding", "pos_embed"),
    Rule("encoder.ln.{p}", "ln1.{p}"),
)

_CLIP_LAYER = {
    "ln_1.{p}": "ln1.{p}",
    "ln_2.{p}": "ln2.{p}",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.{p}": "attn.proj.{p}",
    "mlp.c_fc.{p}": "ffn.layers.0.0.{p}",
    "mlp.c_proj.{p}": "ffn.layers.1.{p}",
    "ls_1.gamma": "attn.gamma1.weight",
    "ls_2.gamma": "ffn.gamma2.weight",
}
_CLIP_OUTSIDE = (
    Rule("class_embedding", "cls_token", Change(lambda value: value[None, None], lambda value: value[0, 0])),
    Rule("positional_embedding", "pos_embed", Change(lambda value: value[None], lambda value: value[0])),
    Rule("conv1.weight", "patch_embed.projection.weight"),
    Rule("ln_pre.{p}", "pre_norm.{p}"),
    Rule("ln_post.{p}", "ln1.{p}"),
)

NAMINGS = (
    Naming("timm names", (*_layers("blocks.{n}", _TIMM_LAYER), *_TIMM_OUTSIDE), library="timm", family="ViT"),
    Naming("DINOv2's names in chunks", (*_layers("blocks.{c}.{n}", _TIMM_LAYER), *_TIMM_OUTSIDE), family="ViT"),
    Naming(
        "torchvision names",
        (*_layers("encoder.layers.encoder_layer_{n}", _TORCHVISION_LAYER), *_TORCHVISION_OUTSIDE),
        library="torchvision",
        family="ViT",
    ),
    Naming("CLIP's names", (*_layers("transformer.resblocks.{n}", _CLIP_LAYER), *_CLIP_OUTSIDE), family="ViT"),
)

#: mmseg.VisionTransformer, whose attention is PyTorch's own.
MMSEG = Naming(
    "names of mmseg.VisionTransformer",
    (
        Rule("layers.{n}.attn.attn.in_proj_{p}", "layers.{n}.attn.qkv.{p}"),
        Rule("layers.{n}.attn.attn.out_proj.{p}", "layers.{n}.attn.proj.{p}"),
        Rule("{rest}", "{rest}"),
    ),
    family="ViT",
)
