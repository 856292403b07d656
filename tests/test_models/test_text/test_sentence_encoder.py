"""The packaged sentence encoder against sentence-transformers."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from mtadapt.errors import MTAdaptError
from mtadapt.models.text import SentenceTextEncoder, sentence_encoder
from mtadapt.models.text.sentence_encoder import _packaged_folder

TEXTS = ["car", "truck", "motorcycle", "bicycle", "Traffic Light", "a photo of a traffic sign.", "", "word " * 400]


@pytest.fixture(scope="module")
def theirs() -> SentenceTransformer:
    return SentenceTransformer(str(_packaged_folder()), device="cpu")


@pytest.fixture(scope="module")
def encoder() -> SentenceTextEncoder:
    encoder = SentenceTextEncoder()
    encoder.load()
    return encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the model that a test may spoil."""
    return Path(shutil.copytree(_packaged_folder(), tmp_path / "model"))


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_equals_sentence_transformers(encoder: SentenceTextEncoder, theirs: SentenceTransformer):
    expected = theirs.encode(TEXTS, convert_to_tensor=True)
    torch.testing.assert_close(encoder.encode(TEXTS), expected, rtol=0, atol=1e-5)
    assert encoder.embed_dims == encoder.token_dims == 384


def test_tells_related_classes_from_others(encoder: SentenceTextEncoder):
    """The cosines that the model is known for."""
    car, truck, motorcycle, bicycle = encoder.encode(TEXTS[:4])
    assert float(car @ truck) == pytest.approx(0.689, abs=1e-3)
    assert float(motorcycle @ bicycle) == pytest.approx(0.676, abs=1e-3)
    assert float(truck @ bicycle) == pytest.approx(0.508, abs=1e-3)


def test_contexts_that_hold_a_template_give_what_the_template_gives(
    encoder: SentenceTextEncoder, theirs: SentenceTransformer
):
    names = ["car.", "traffic light.", "sky."]
    expected = theirs.encode([f"a photo of a {name}" for name in names], convert_to_tensor=True).clone()
    contexts = encoder.context_vectors("a photo of a")
    assert contexts.shape == (4, 384)
    torch.testing.assert_close(encoder.encode_with_contexts(contexts, names), expected, rtol=0, atol=1e-5)
    each = torch.stack([encoder.context_vectors(f"a {word} of a") for word in ("photo", "painting", "photo")])
    expected[1] = theirs.encode("a painting of a traffic light.", convert_to_tensor=True)
    torch.testing.assert_close(encoder.encode_with_contexts(each, names), expected, rtol=0, atol=1e-5)


def test_gradients_reach_the_contexts_and_nothing_else(encoder: SentenceTextEncoder):
    fingerprint = encoder.fingerprint()
    contexts = encoder.context_vectors("a photo of a").requires_grad_()
    (encoder.encode_with_contexts(contexts, ["car", "sky"]) * torch.arange(384)).sum().backward()
    assert contexts.grad is not None and contexts.grad.any(1).all()
    assert not any(p.requires_grad or p.grad is not None for p in encoder.parameters())
    assert encoder.fingerprint() == fingerprint
    encoder.train()
    assert not any(module.training for module in encoder.modules())


def test_mixed_precision_does_not_reach_inside(encoder: SentenceTextEncoder):
    expected = encoder.encode(["car", "sky"])
    contexts = encoder.context_vectors("a photo of a")
    with_contexts = encoder.encode_with_contexts(contexts, ["car"])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.encode(["car", "sky"]), expected)
        assert torch.equal(encoder.encode_with_contexts(contexts, ["car"]), with_contexts)


def test_a_folder_of_ones_own_is_read(folder: Path, encoder: SentenceTextEncoder):
    own = SentenceTextEncoder(str(folder))
    assert list(own.parameters()) == []
    assert torch.equal(own.encode(["car"]), encoder.encode(["car"]))
    assert own.fingerprint() == encoder.fingerprint()
    assert (encoder.provenance()["model"], own.provenance()["model"]) == ("all-MiniLM-L6-v2", "model")


# Errors


def test_no_folder(tmp_path: Path):
    with pytest.raises(MTAdaptError, match=r"path='/nowhere' holds no config\.json; give a folder with a BERT"):
        SentenceTextEncoder("/nowhere")


def test_a_config_that_is_no_json(folder: Path):
    (folder / "config.json").write_text("{")
    with pytest.raises(MTAdaptError, match=r"config\.json is no JSON \(.+\)$"):
        SentenceTextEncoder(str(folder))


def test_another_kind_of_model(folder: Path):
    edit(folder / "config.json", model_type="mpnet")
    with pytest.raises(MTAdaptError, match=r"holds a model of type 'mpnet'; give a folder with a BERT"):
        SentenceTextEncoder(str(folder))


def test_another_pooling(folder: Path):
    edit(folder / "1_Pooling/config.json", pooling_mode_cls_token=True, pooling_mode_mean_tokens=False)
    with pytest.raises(MTAdaptError, match=r"pools by pooling_mode_cls_token, not by pooling_mode_mean_tokens"):
        SentenceTextEncoder(str(folder))


def test_weights_that_are_missing(folder: Path):
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.3.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", dict(format="pt"))
    with pytest.raises(MTAdaptError, match=r"1 weights are missing, first 'encoder\.layer\.3\.output\.dense\.weight'"):
        SentenceTextEncoder(str(folder)).load()


def test_weights_of_another_size(folder: Path):
    edit(folder / "config.json", intermediate_size=768)
    with pytest.raises(MTAdaptError, match=r"does not hold a whole BERT: "):
        SentenceTextEncoder(str(folder)).load()


def test_no_weights(folder: Path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(MTAdaptError, match=r"does not hold a whole BERT: .*model\.safetensors"):
        SentenceTextEncoder(str(folder)).load()


def test_the_missing_extra_is_named_by_load_and_not_before(monkeypatch: pytest.MonkeyPatch):
    expected = r"^SentenceTextEncoder needs the extra 'text': pip install 'mtadapt\[text\]' \(.*\)$"
    monkeypatch.setitem(sys.modules, "transformers", None)
    encoder = SentenceTextEncoder()
    with pytest.raises(MTAdaptError, match=expected):
        encoder.load()
    monkeypatch.setattr(sentence_encoder, "find_spec", lambda name: None)
    with pytest.raises(MTAdaptError, match=expected):
        encoder.load()


def test_too_long_a_sequence_is_refused(encoder: SentenceTextEncoder):
    expected = r"contexts of length 254 and a text of 3 tokens are longer than the 256 tokens of the encoder"
    with pytest.raises(MTAdaptError, match=expected):
        encoder.encode_with_contexts(torch.zeros(254, 384), ["car"])


def test_nothing_is_asked_of_the_network(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert SentenceTextEncoder().encode(["car"]).shape == (1, 384)
    assert capfd.readouterr() == ("", "")
