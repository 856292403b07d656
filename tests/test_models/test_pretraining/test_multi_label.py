"""Multi-label heads: equal to the stock loss and decoder, and labels that are unknown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from mmpretrain.structures import DataSample
from timm.layers.ml_decoder import MLDecoder

from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS
from tests.pretraining import LABELS

HEADS = ("LinearMultiLabelHead", "MLDecoderHead")


def head(kind: str = "LinearMultiLabelHead", **settings):
    torch.manual_seed(0)
    settings = dict(dict(embed_dims=16) if kind == "MLDecoderHead" else {}, **settings)
    return MODELS.build(dict(type=f"mtadapt.{kind}", in_channels=12, labels=LABELS, **settings))


def samples(scores: torch.Tensor) -> list[DataSample]:
    return [DataSample().set_gt_score(row) for row in scores]


@pytest.mark.parametrize("gammas", [dict(), dict(gamma_pos=1.0, gamma_neg=2.0, clip=0.0)])
def test_all_known_is_the_stock_loss(gammas: dict):
    own = head(loss=dict(type="mtadapt.PartialAsymmetricLoss", **gammas))
    stock = MODELS.build(
        dict(_scope_="mmpretrain", type="MultiLabelClsHead", loss=dict(type="AsymmetricLoss", **gammas))
    )
    features = torch.randn(4, 12, 3, 3) * 5
    scores = torch.randint(0, 2, (4, 5)).float()
    expected = stock._get_loss(own((features,)), samples(scores))["loss"]
    losses = own.loss((features,), samples(scores))
    assert [*losses] == ["loss_style", "loss_objects"]
    torch.testing.assert_close(sum(losses.values()), expected)


def test_unknown_labels_against_a_loop():
    """In float64, label by label."""
    own = head()
    features = torch.randn(6, 12, 3, 3)
    scores = torch.randint(-1, 2, (6, 5)).float()
    scores[2, :2] = -1
    scores[3] = -1
    logits = own((features,)).double()
    losses = own.loss((features,), samples(scores))
    for kind, (start, stop) in dict(style=(0, 2), objects=(2, 5)).items():
        total, images = 0.0, set()
        for image in range(6):
            for label in range(start, stop):
                p = torch.sigmoid(logits[image, label]).item()
                if scores[image, label] == 1:
                    total += -torch.log(torch.tensor(p)).item()
                elif scores[image, label] == 0:
                    shifted = max(p - 0.05, 0)
                    total += -(shifted**4) * torch.log(torch.tensor(1 - shifted)).item()
                else:
                    continue
                images.add(image)
        assert 3 not in images
        assert losses[f"loss_{kind}"].item() == pytest.approx(total / len(images), rel=1e-4)


@pytest.mark.parametrize("kind", HEADS)
def test_no_known_label_is_a_zero_with_gradients(kind: str):
    own = head(kind)
    features = torch.randn(3, 12, 2, 2)
    losses = own.loss((features,), samples(torch.full((3, 5), -1.0)))
    sum(losses.values()).backward()
    assert all(value.item() == 0 for value in losses.values())
    for name, parameter in own.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None and not parameter.grad.any(), name


@pytest.mark.parametrize("extreme", [40.0, -40.0, 200.0])
def test_sure_logits_stay_finite(extreme: float):
    loss = MODELS.build(dict(type="mtadapt.PartialAsymmetricLoss"))
    logits = torch.full((2, 3), extreme, requires_grad=True)
    value = loss(logits, torch.tensor([[1.0, 0, -1], [0, 1, -1]]))
    value.backward()
    assert value.isfinite() and logits.grad.isfinite().all() and not logits.grad[:, 2].any()


@pytest.mark.parametrize("num_groups", [100, 2, 3])
def test_decoder_is_timms(num_groups: int):
    """timm's forward pass, with its decoder layer called directly."""
    own = head("MLDecoderHead", num_groups=num_groups).eval()
    stock = MLDecoder(5, num_of_groups=num_groups, decoder_embedding=16, initial_num_features=12).eval()
    stock.load_state_dict(own.decoder.state_dict())
    layer = stock.decoder.layers[0]
    stock.__dict__["_modules"].pop("decoder")
    stock.__dict__["decoder"] = SimpleNamespace(__call__=layer).__call__
    features = torch.randn(4, 12, 3, 2)
    torch.testing.assert_close(own((features,)), stock(features))


@pytest.mark.parametrize("kind", HEADS)
def test_heads_serve_a_stock_classifier(kind: str):
    stock = MODELS.build(
        dict(
            _scope_="mmpretrain",
            type="ImageClassifier",
            backbone=dict(type="ResNet", depth=18, stem_channels=8, base_channels=8),
            head=dict(
                type=f"mtadapt.{kind}",
                in_channels=64,
                labels=LABELS,
                thr=0.3,
                **(dict(embed_dims=16) if kind == "MLDecoderHead" else {}),
            ),
        )
    ).eval()
    (first, _) = stock.predict(torch.randn(2, 3, 64, 64), samples(torch.zeros(2, 5)))
    assert first.pred_score.shape == (5,)
    assert first.pred_label.tolist() == (first.pred_score >= 0.3).nonzero()[:, 0].tolist()


def test_kinds_are_in_the_order_of_the_targets():
    """The setting names objects first, the dataset's targets begin with style."""
    turned = MODELS.build(
        dict(
            type="mtadapt.LinearMultiLabelHead",
            in_channels=12,
            labels=dict(objects=LABELS["objects"], style=LABELS["style"]),
        )
    )
    own = head()
    turned.load_state_dict(own.state_dict())
    features, scores = torch.randn(4, 12, 3, 3), torch.randint(-1, 2, (4, 5)).float()
    assert turned.loss((features,), samples(scores)) == own.loss((features,), samples(scores))


def test_labels_that_do_not_fit():
    with pytest.raises(MTAdaptError, match="the head has 5 labels and the samples 4; give head and dataset the same"):
        head().loss((torch.randn(2, 12, 2, 2),), samples(torch.zeros(2, 4)))
    with pytest.raises(MTAdaptError, match="labels: there are none"):
        MODELS.build(dict(type="mtadapt.LinearMultiLabelHead", in_channels=12, labels=dict(objects=[])))
