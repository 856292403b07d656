"""Files of text vectors, and the one that comes with the package."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.errors import MTAdaptError
from mtadapt.models.text import PrecomputedTextEmbeddings, SentenceTextEncoder, write_embeddings
from mtadapt.models.text.bdd100k_texts import SYNONYMS, packaged_texts
from mtadapt.models.text.precomputed import PACKAGED_FILE


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.safetensors"
    vectors = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]])
    write_embeddings(path, ["car", "traffic light"], vectors, dict(encoder="Hand", model="none"))
    return path


def test_the_packaged_vectors_are_those_of_the_sentence_encoder():
    packaged, live = PrecomputedTextEmbeddings(), SentenceTextEncoder()
    assert list(packaged.texts) == packaged_texts()
    torch.testing.assert_close(packaged.encode(packaged.texts), live.encode(packaged.texts), rtol=0, atol=1e-5)
    assert packaged.fingerprint() == live.fingerprint()
    assert live.provenance().items() <= packaged.provenance().items()
    assert packaged.embed_dims == live.embed_dims


@pytest.mark.parametrize("task", METAINFO["tasks"])
def test_the_packaged_vectors_cover_the_classes_and_their_synonyms(task: str):
    packaged = PrecomputedTextEmbeddings()
    for name in METAINFO["tasks"][task]["classes"]:
        texts = [name, *SYNONYMS[task][name]]
        assert len(set(texts)) == len(texts) > 1
        assert set(texts) | {f"a photo of a {text}." for text in texts} <= set(packaged.texts)
    assert SYNONYMS[task].keys() == set(METAINFO["tasks"][task]["classes"])


def test_the_packaged_file_is_small_and_plain():
    assert PACKAGED_FILE.stat().st_size < 400_000
    with safe_open(PACKAGED_FILE, framework="pt") as file:
        assert set(file.metadata()) == {"texts", "provenance"}
        assert json.loads(file.metadata()["texts"])[0] == "pedestrian"
        assert list(file.keys()) == ["embeddings"]


def test_what_is_written_is_read_at_unit_length(file: Path):
    encoder = PrecomputedTextEmbeddings(str(file))
    assert (encoder.embed_dims, encoder.token_dims, encoder.texts) == (3, None, ("car", "traffic light"))
    assert not encoder.loaded
    found = encoder.encode(["traffic light", "car", "car"])
    expected = torch.tensor([[0.0, 0.0, 1.0], [0.6, 0.8, 0.0], [0.6, 0.8, 0.0]])
    torch.testing.assert_close(found, expected)
    assert encoder.provenance()["model"] == "none"
    encoder.unload()
    assert list(encoder.buffers()) == []
    torch.testing.assert_close(encoder.encode(["car"]), expected[1:2])


def test_a_file_without_a_fingerprint_has_that_of_its_vectors(file: Path, tmp_path: Path):
    copy, other = tmp_path / "copy.safetensors", tmp_path / "other.safetensors"
    copy.write_bytes(file.read_bytes())
    write_embeddings(other, ["car"], torch.ones(1, 3), {})
    prints = [PrecomputedTextEmbeddings(str(path)).fingerprint() for path in (file, copy, other)]
    assert prints[0] == prints[1] != prints[2]


# Errors


def test_a_text_that_is_not_there_is_named_with_the_nearest_and_the_tool():
    expected = (
        r"^minilm_bdd100k\.safetensors has no vector of 'traffic lihgt' and 1 more, nearest: 'traffic light', .*; "
        r"write a file with your texts: tools/model_converters/text_embeddings\.py --texts \.\.\. --out FILE"
    )
    with pytest.raises(MTAdaptError, match=expected):
        PrecomputedTextEmbeddings().encode(["car", "traffic lihgt", "qqqq"])
    with pytest.raises(MTAdaptError, match=r"has no vector of 'zzzzz'; write"):
        PrecomputedTextEmbeddings().encode(["zzzzz"])


def test_no_file():
    with pytest.raises(MTAdaptError, match=r"path='/nowhere/a' is no file; write it with tools/.*text_embeddings\.py"):
        PrecomputedTextEmbeddings("/nowhere/a")


@pytest.mark.parametrize(
    ("tensors", "metadata", "reason"),
    [
        (dict(embeddings=torch.ones(2, 3)), None, "'texts'"),
        (dict(embeddings=torch.ones(2, 3)), dict(texts='["a"]'), "1 texts and 2 vectors"),
        (dict(embeddings=torch.ones(2, 3)), dict(texts='["a", "a"]'), "1 texts and 2 vectors"),
        (dict(embeddings=torch.ones(2)), dict(texts='["a", "b"]'), "expected 2"),
        (dict(vectors=torch.ones(1, 3)), dict(texts='["a"]'), "embeddings"),
        (None, None, "header"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, tensors: dict | None, metadata: dict | None, reason: str):
    path = tmp_path / "other.safetensors"
    if tensors is None:
        path.write_bytes(b"no safetensors at all")
    else:
        save_file(tensors, path, metadata)
    with pytest.raises(
        MTAdaptError, match=rf"other\.safetensors is no file of text vectors \(.*{reason}.*\); write it"
    ):
        PrecomputedTextEmbeddings(str(path))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_vectors_without_a_direction_are_refused(tmp_path: Path, value: float):
    path = tmp_path / "bad.safetensors"
    write_embeddings(path, ["a", "b"], torch.tensor([[1.0, 2.0], [value, value]]), {})
    with pytest.raises(MTAdaptError, match=r"bad\.safetensors: a vector is zero or not finite; write the file anew"):
        PrecomputedTextEmbeddings(str(path)).load()


def test_contexts_are_refused():
    with pytest.raises(MTAdaptError, match=r"^PrecomputedTextEmbeddings takes no learnable contexts: "):
        PrecomputedTextEmbeddings().encode_with_contexts(torch.zeros(4, 384), ["car"])
    with pytest.raises(MTAdaptError, match=r"^PrecomputedTextEmbeddings takes no learnable contexts: "):
        PrecomputedTextEmbeddings().context_vectors("a photo of a")
