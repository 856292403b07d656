"""Small open_clip models of every kind, and their checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from torch import nn

from mtadapt.models.text import OpenCLIPTextEncoder

VIT = dict(image_size=32, layers=1, width=32, head_width=16, patch_size=16)
RESNET = dict(image_size=32, layers=[1, 1, 1, 1], width=8)
TEXT = dict(context_length=77, vocab_size=49408, width=32, heads=4, layers=3)
SIGLIP = dict(context_length=16, no_causal_mask=True, proj_bias=True, pool_type="last", norm_kwargs=dict(eps=1e-6))
COCA = dict(context_length=76, embed_cls=True, output_tokens=True)
DECODER = dict(context_length=76, vocab_size=49408, width=32, heads=4, layers=1, attn_pooler_heads=4)

#: Named after the models whose layout they have.
CONFIGS = {
    "small-vit": dict(embed_dim=24, vision_cfg=VIT, text_cfg=TEXT),
    "small-vit-quickgelu": dict(embed_dim=24, quick_gelu=True, vision_cfg=VIT, text_cfg=TEXT),
    "small-deep": dict(embed_dim=24, vision_cfg=VIT, text_cfg={**TEXT, "layers": 4}),
    "small-resnet": dict(embed_dim=40, vision_cfg=RESNET, text_cfg=TEXT),
    "small-vitamin": dict(embed_dim=24, vision_cfg=VIT, text_cfg=TEXT, custom_text=True),
    "small-sigmoid": dict(embed_dim=32, vision_cfg=VIT, text_cfg={**TEXT, **SIGLIP}, custom_text=True),
    "small-coca": dict(
        embed_dim=24, vision_cfg=VIT, text_cfg={**TEXT, **COCA}, multimodal_cfg=DECODER, custom_text=True
    ),
}
#: Those whose tower takes contexts.
CAUSAL = ("small-vit", "small-deep", "small-vit-quickgelu", "small-resnet", "small-vitamin")


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[nn.Module, str]]:
    """Make open_clip's own model of a name, and the path of its checkpoint."""
    folder = tmp_path_factory.mktemp("open_clip")
    for name, config in CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)
    made: dict[str, tuple[nn.Module, str]] = {}

    def make(name: str) -> tuple[nn.Module, str]:
        if name not in made:
            with torch.random.fork_rng():
                torch.manual_seed(len(name))
                model = open_clip.create_model(name).eval()
            path: Path = folder / f"{name}.pt"
            torch.save(model.state_dict(), path)
            made[name] = (model, str(path))
        return made[name]

    return make


@pytest.fixture
def encoder(clip: Callable) -> OpenCLIPTextEncoder:
    """A small CLIP text tower with weights from a file."""
    return OpenCLIPTextEncoder("small-vit", clip("small-vit")[1])


@pytest.fixture
def small(clip: Callable) -> dict:
    """Config of a small CLIP text tower."""
    return dict(type="mtadapt.OpenCLIPTextEncoder", model="small-vit", pretrained=clip("small-vit")[1])


@pytest.fixture
def other(clip: Callable) -> dict:
    """One of the same size with other weights."""
    return dict(type="OpenCLIPTextEncoder", model="small-vit", pretrained=None)
