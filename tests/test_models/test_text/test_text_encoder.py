"""What all text encoders share, on one that counts its calls."""

from __future__ import annotations

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.text import PrecomputedTextEmbeddings, TextEncoder, build_text_encoder
from mtadapt.models.text.text_encoder import tensors_sha256


class Lengths(TextEncoder):
    """The vector of a text is (its length, 1)."""

    embed_dims = 2

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.loads = 0

    def _load(self) -> None:
        self.loads += 1
        self.tower = nn.Sequential(nn.Linear(1, 2), nn.Dropout(0.5))

    def _encode(self, texts: list[str]) -> Tensor:
        self.sizes.append(len(texts))
        return torch.tensor([[len(text), 1] for text in texts], dtype=torch.float64)


def test_weights_are_loaded_once_and_frozen():
    encoder = Lengths()
    assert encoder.loads == 0
    encoder.init_weights()
    encoder.encode(["abc"])
    assert encoder.loads == 1
    for _ in range(2):
        assert not any(module.training for module in encoder.modules())
        encoder.train()
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    encoder.unload()
    assert list(encoder.children()) == []
    encoder.encode(["abc"])
    assert encoder.loads == 2


def test_vectors_are_of_unit_length_and_come_in_order_over_chunks():
    encoder = Lengths()
    texts = ["a" * (number % 7) for number in range(600)]
    found = encoder.encode(texts)
    expected = torch.tensor(
        [[len(text) / (len(text) ** 2 + 1) ** 0.5, 1 / (len(text) ** 2 + 1) ** 0.5] for text in texts]
    )
    torch.testing.assert_close(found, expected)
    assert encoder.sizes == [256, 256, 88]
    assert encoder.encode([]).shape == (0, 2)


def test_the_fingerprint_tells_names_types_shapes_and_values_apart():
    ones = torch.ones(2, 3)
    cases = [dict(a=ones), dict(b=ones), dict(a=ones.half()), dict(a=ones.T), dict(a=ones * 2), dict(a=ones, b=ones)]
    assert len({tensors_sha256(case) for case in cases}) == len(cases)
    assert tensors_sha256(dict(a=ones, b=ones)) == tensors_sha256(dict(b=ones.clone(), a=ones.T.T))
    assert tensors_sha256(dict(a=ones), "x") != tensors_sha256(dict(a=ones), "y")


@pytest.mark.parametrize("scope", ["mtadapt", "mmdet", "mmseg", "mmengine"])
@pytest.mark.parametrize("prefix", ["", "mtadapt."])
def test_an_encoder_is_built_from_every_scope(scope: str, prefix: str):
    with DefaultScope.overwrite_default_scope(scope):
        encoder = build_text_encoder(dict(type=f"{prefix}PrecomputedTextEmbeddings"))
    assert isinstance(encoder, PrecomputedTextEmbeddings)


def test_what_is_no_encoder_is_refused():
    with pytest.raises(
        MTAdaptError, match=r"^text_encoder='clip': write dict\(type='mtadapt\.SentenceTextEncoder'\), for"
    ):
        build_text_encoder("clip")  # type: ignore[arg-type]
    with pytest.raises(MTAdaptError, match=r"^text_encoder: type='EfficientNetLite0' is no text encoder$"):
        build_text_encoder(dict(type="EfficientNetLite0", pretrained=None))
    with pytest.raises(MTAdaptError, match=r"^text_encoder: unknown type='CLIP'; known: OpenCLIPTextEncoder, "):
        build_text_encoder(dict(type="CLIP"))
    with pytest.raises(MTAdaptError, match=r"^text_encoder: PrecomputedTextEmbeddings.*unexpected keyword.*'file'"):
        build_text_encoder(dict(type="PrecomputedTextEmbeddings", file="x"))
