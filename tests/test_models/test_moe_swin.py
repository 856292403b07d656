"""Checkpoints of Swin: another window size, and names of old ones."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmpretrain.models import SwinTransformer

from mtadapt.errors import MTAdaptError
from mtadapt.models import MoESwin

ARCH = dict(embed_dims=8, depths=[1, 2], num_heads=[1, 2])
ALL = dict(out_indices=(0, 1))


def stock(window_size: int = 7) -> SwinTransformer:
    torch.manual_seed(0)
    backbone = SwinTransformer(ARCH, window_size=window_size, pad_small_map=True, **ALL)
    backbone.init_weights()
    return backbone


@pytest.mark.parametrize(("old", "new"), [(3, 4), (6, 7), (7, 4)])
def test_another_window_size(tmp_path: Path, old: int, new: int):
    """The tables are those that mmdet's Swin makes; all else is loaded, strictly, and the index is the new one."""
    from mmdet.models import SwinTransformer as DetectionSwin
    from mmengine.config import ConfigDict

    weights = stock(old).state_dict()
    path = tmp_path / "swin.pth"
    torch.save({f"backbone.{key}": value for key, value in weights.items() if not key.endswith("index")}, path)
    expected = DetectionSwin(
        embed_dims=8,
        depths=(1, 2),
        num_heads=(1, 2),
        window_size=new,
        strides=(4, 2),
        out_indices=(0, 1),
        init_cfg=ConfigDict(type="Pretrained", checkpoint=str(path)),
    )
    expected.init_weights()
    backbone = MoESwin(ARCH, window_size=new, **ALL)
    backbone.load_state_dict({**weights})
    assert sorted(backbone.state_dict()) == sorted(expected.state_dict())
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(backbone.state_dict()[name], value, rtol=1e-6, atol=1e-7, msg=name)
    backbone.eval()
    expected.eval()
    x = torch.randn(1, 3, 8 * new, 8 * new)
    for ours, theirs in zip(backbone(x), expected(x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_window_size_of_a_checkpoint_file_inside_a_model(tmp_path: Path):
    weights = stock(3).state_dict()
    torch.save(dict(state_dict={f"backbone.{key}": value for key, value in weights.items()}), tmp_path / "swin.pth")
    checkpoint = dict(type="Pretrained", checkpoint=str(tmp_path / "swin.pth"), prefix="backbone.")
    backbone = MoESwin(ARCH, window_size=4, init_cfg=checkpoint, **ALL)
    backbone.init_weights()
    assert torch.equal(backbone.patch_embed.projection.weight, weights["patch_embed.projection.weight"])
    assert backbone.stages[1].blocks[1].attn.w_msa.relative_position_bias_table.shape == (49, 2)


def test_another_number_of_heads():
    weights = stock(3).state_dict()
    with pytest.raises(MTAdaptError, match=r"relative_position_bias_table: the checkpoint has the shape \(25, 1\)"):
        MoESwin({**ARCH, "num_heads": [2, 2]}, window_size=3, **ALL).load_state_dict(weights)


def test_names_of_the_first_checkpoints(tmp_path: Path):
    """As mmpretrain renames them: one final norm without a number, and masks that are computed today."""
    weights = stock().state_dict()
    old = {key.replace("norm1.", "norm.") if key.startswith("norm1.") else key: value for key, value in weights.items()}
    old["stages.1.blocks.1.attn.attn_mask"] = torch.zeros(1)
    torch.save({f"backbone.{key}": value for key, value in old.items()}, tmp_path / "swin.pth")
    backbone = MoESwin(ARCH, **ALL)
    load_checkpoint(backbone, str(tmp_path / "swin.pth"), strict=True, revise_keys=[(r"^backbone\.", "")])
    assert all(torch.equal(value, weights[key]) for key, value in backbone.state_dict().items())


def test_absolute_position_embedding():
    settings = dict(arch=ARCH, img_size=32, use_abs_pos_embed=True, window_size=4, **ALL)
    expected, twin = SwinTransformer(pad_small_map=True, **settings), MoESwin(**settings)
    torch.nn.init.normal_(expected.absolute_pos_embed)
    twin.load_state_dict(expected.state_dict())
    expected.eval()
    twin.eval()
    x = torch.randn(1, 3, 40, 56)
    for ours, theirs in zip(twin(x), expected(x), strict=True):
        assert torch.equal(ours, theirs)
