"""Masked images: equal to SimMIM of mmpretrain, and what happens at its edges."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mtadapt.errors import MTAdaptError
from mtadapt.models.pretraining.masking import pixel_mask
from mtadapt.registry import MODELS
from tests.pretraining import BACKBONES, SWIN, batch, build


def images_and_masks(model, **changes):
    data = model.data_preprocessor(batch(**changes))
    return data["inputs"][:, 0], torch.stack([sample.mask for sample in data["data_samples"]])


def test_masked_pass_and_loss_are_those_of_simmim():
    model = build(multi_label=None, contrastive=None)
    images, masks = images_and_masks(model)
    stock = MODELS.build(
        dict(
            _scope_="mmpretrain",
            type="SimMIM",
            backbone={**SWIN, "type": "SimMIMSwinTransformer"},
            neck=dict(type="SimMIMLinearDecoder", in_channels=128, encoder_stride=32),
            head=dict(
                type="SimMIMHead", patch_size=4, loss=dict(type="PixelReconstructionLoss", criterion="L1", channel=3)
            ),
        )
    )
    # The layout of the backbone's entries is the same, with the mask token.
    stock.backbone.load_state_dict(model.backbone.state_dict())
    stock.neck.load_state_dict(model.masked_image.decoder.state_dict())
    stock.train()
    latent = stock.backbone(images, masks)
    expected = stock.head.loss(stock.neck(latent[0]), images, masks.long())
    losses = model.loss(model.data_preprocessor(batch())["inputs"], batch()["data_samples"])
    assert [*losses] == ["mim.loss_pixel"]
    torch.testing.assert_close(losses["mim.loss_pixel"], expected, rtol=1e-6, atol=0)
    with model.masked_image.masking.hiding(masks, keep_statistics=False):
        assert torch.equal(model.backbone(images)[0], latent[0])
    # Without a mask the backbone is the stock one again.
    assert torch.equal(model.backbone(images)[0], stock.backbone(images, None)[0])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_hidden_pixels_do_not_reach_the_backbone(backbone: str):
    model = build(backbone).eval()
    images, masks = images_and_masks(model, token=BACKBONES[backbone][3])
    hidden = pixel_mask(masks, images.shape[-2:])
    changed = torch.where(hidden > 0, torch.randn_like(images), images)
    assert torch.equal(model.reconstruct(images, masks), model.reconstruct(changed, masks))
    seen = torch.where(hidden > 0, images, images + 0.1)
    assert not torch.equal(model.reconstruct(images, masks), model.reconstruct(seen, masks))


def test_images_without_a_mask_and_with_a_full_one():
    model = build(multi_label=None, contrastive=None)
    data = model.data_preprocessor(batch())
    loss = model.loss(**data_of(data))["mim.loss_pixel"]
    # An image of which nothing is hidden adds nothing.
    more = model.data_preprocessor(batch(5))
    more["data_samples"][4].mask = torch.zeros(16, 16, dtype=torch.bool)
    torch.testing.assert_close(model.loss(**data_of(more))["mim.loss_pixel"], loss)
    for sample in data["data_samples"]:
        sample.mask = torch.zeros(16, 16, dtype=torch.bool)
    none = model.loss(**data_of(data))["mim.loss_pixel"]
    none.backward()
    assert none.item() == 0
    assert all(parameter.grad is not None for parameter in model.parameters())
    # With everything hidden the loss is the mean over all pixels, and the features do not depend on the image.
    for sample in data["data_samples"]:
        sample.mask = torch.ones(16, 16, dtype=torch.bool)
    full = model.loss(**data_of(data))["mim.loss_pixel"]
    images = data["inputs"][:, 0]
    pixels = model.reconstruct(images, torch.ones(4, 16, 16))
    torch.testing.assert_close(full, (pixels - images).abs().mean())
    assert torch.allclose(pixels[0], pixels[1])


def data_of(data: dict) -> dict:
    return dict(inputs=data["inputs"], samples=data["data_samples"])


def test_masked_pass_leaves_running_statistics_to_the_unmasked_one():
    model, plain = build("resnet"), build("resnet", masked_image=None)
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if name in plain.state_dict()})
    for each in (model, plain):
        each.loss(**data_of(each.data_preprocessor(batch(token=32))))
    norms = [name for name, module in model.backbone.named_modules() if isinstance(module, _BatchNorm)]
    for name in norms:
        both = (each.backbone.get_submodule(name).running_mean for each in (model, plain))
        torch.testing.assert_close(*both)
    alone = build("resnet", multi_label=None, contrastive=None)
    before = alone.backbone.bn1.running_mean.clone()
    alone.loss(**data_of(alone.data_preprocessor(batch(token=32))))
    assert not torch.equal(alone.backbone.bn1.running_mean, before)
    assert alone.backbone.bn1.momentum == 0.1


def test_synchronised_and_recomputed_statistics():
    model = build("resnet")
    model.backbone = nn.SyncBatchNorm.convert_sync_batchnorm(model.backbone)
    model.masked_image.masking.backbone = model.backbone
    with model.masked_image.masking.hiding(torch.zeros(1, 2, 2), keep_statistics=True):
        assert model.backbone.bn1.momentum == 0
    assert model.backbone.bn1.momentum == 0.1
    model.backbone.with_cp = True
    with (
        pytest.raises(MTAdaptError, match="with_cp=True of ResNet computes masked images again"),
        model.masked_image.masking.hiding(torch.zeros(1, 2, 2), keep_statistics=True),
    ):
        pass


def test_a_copy_of_the_model_hides_tokens_of_the_copy():
    model = build().eval()
    copy = deepcopy(model)
    images, masks = images_and_masks(model)
    with torch.no_grad():
        copy.backbone.mask_token += 1
    assert not torch.equal(copy.reconstruct(images, masks), model.reconstruct(images, masks))
    with model.masked_image.masking.hiding(masks, keep_statistics=False):
        assert not torch.equal(copy.backbone(images)[0], model.backbone(images)[0])


def test_sizes_that_do_not_fit():
    model = build(multi_label=None, contrastive=None)
    data = model.data_preprocessor(batch(token=8))
    with pytest.raises(MTAdaptError, match=r"the masks are 8x8 and the tokens of SwinTransformer 16x16; set model_pat"):
        model.loss(**data_of(data))
    model = build(multi_label=None, contrastive=None, masked_image=dict(in_channels=128, encoder_stride=16))
    with pytest.raises(MTAdaptError, match=r"decoder gives \(32, 32\) pixels for images of \(64, 64\); .*\(32\)"):
        model.loss(**data_of(model.data_preprocessor(batch())))
    with pytest.raises(MTAdaptError, match="the masks are 3x3 and the image 64x64, no multiple of it"):
        pixel_mask(torch.zeros(1, 3, 3), (64, 64))
