"""The text towers against open_clip's own models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.text import OpenCLIPTextEncoder
from tests.test_models.test_text.conftest import CAUSAL, CONFIGS

TEXTS = ["a photo of a car.", "a photo of a traffic light.", "Sky", "", "x " * 100]


def reference(model: nn.Module, name: str, texts: list[str]) -> Tensor:
    with torch.no_grad():
        return model.encode_text(open_clip.get_tokenizer(name)(texts), normalize=True)


@pytest.mark.parametrize("name", CONFIGS)
def test_encode_equals_open_clip(clip: Callable, name: str):
    model, path = clip(name)
    encoder = OpenCLIPTextEncoder(name, path)
    torch.testing.assert_close(encoder.encode(TEXTS), reference(model, name, TEXTS), rtol=0, atol=1e-5)
    assert encoder.embed_dims == CONFIGS[name]["embed_dim"] == encoder.encode(TEXTS).shape[1]
    assert encoder.token_dims == (32 if name in CAUSAL else None)


@pytest.mark.parametrize("name", CAUSAL)
def test_contexts_that_hold_a_template_give_what_the_template_gives(clip: Callable, name: str):
    model, path = clip(name)
    encoder = OpenCLIPTextEncoder(name, path)
    names = ["car.", "traffic light.", "sky."]
    expected = reference(model, name, [f"a photo of a {one}" for one in names])
    contexts = encoder.context_vectors("a photo of a")
    assert contexts.shape == (4, 32)
    torch.testing.assert_close(encoder.encode_with_contexts(contexts, names), expected, rtol=0, atol=1e-5)
    each = torch.stack([encoder.context_vectors(f"a {word} of a") for word in ("photo", "drawing", "photo")])
    expected[1] = reference(model, name, ["a drawing of a traffic light."])[0]
    torch.testing.assert_close(encoder.encode_with_contexts(each, names), expected, rtol=0, atol=1e-5)


def test_gradients_reach_the_contexts_and_nothing_else(encoder: OpenCLIPTextEncoder):
    encoder.load()
    encoder.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    contexts = nn.Parameter(encoder.context_vectors("a photo of a"))
    optimizer = torch.optim.AdamW([contexts, *encoder.parameters()], lr=0.01)
    target = encoder.encode(["red", "blue"])
    losses = []
    for _ in range(20):
        loss = (1 - (encoder.encode_with_contexts(contexts, ["car", "sky"]) * target).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert not any(p.requires_grad or p.grad is not None for p in encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not any(module.training for module in encoder.modules())


def test_gradients_are_those_of_open_clips_token_embeddings(clip: Callable):
    model, path = clip("small-vit")
    weight = torch.randn(24, generator=torch.Generator().manual_seed(0))
    embedded: list[Tensor] = []
    hook = model.token_embedding.register_forward_hook(lambda *args: embedded.append(args[-1]))
    vector = model.encode_text(open_clip.tokenize(["a photo of a car."]), normalize=True)
    (expected,) = torch.autograd.grad((vector @ weight).sum(), embedded)
    hook.remove()
    encoder = OpenCLIPTextEncoder("small-vit", path)
    contexts = encoder.context_vectors("a photo of a").requires_grad_()
    (encoder.encode_with_contexts(contexts, ["car."]) @ weight).sum().backward()
    torch.testing.assert_close(contexts.grad, expected[0, 1:5], rtol=1e-4, atol=1e-5)


def test_the_constructor_reads_no_weights_and_load_keeps_no_image_tower(clip: Callable):
    model, path = clip("small-resnet")
    encoder = OpenCLIPTextEncoder("small-resnet", path)
    assert list(encoder.parameters()) == []
    encoder.load()
    of_text = sum(p.numel() for name, p in model.named_parameters() if not name.startswith(("visual.", "logit_")))
    assert sum(p.numel() for p in encoder.parameters()) == of_text
    encoder.unload()
    assert list(encoder.parameters()) == []
    assert encoder.encode(["car"]).shape == (1, 40)


def test_safetensors_and_training_checkpoints_are_read(clip: Callable, tmp_path: Path):
    model, path = clip("small-vitamin")
    expected = OpenCLIPTextEncoder("small-vitamin", path)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    parallel = {f"module.{key}": value.half() for key, value in model.state_dict().items()}
    torch.save(dict(epoch=1, name="run", state_dict=parallel), tmp_path / "epoch_1.pt")
    safe, trained = (
        OpenCLIPTextEncoder("small-vitamin", str(tmp_path / f)) for f in ("model.safetensors", "epoch_1.pt")
    )
    assert torch.equal(safe.encode(["car"]), expected.encode(["car"]))
    assert safe.fingerprint() == expected.fingerprint() != trained.fingerprint()
    torch.testing.assert_close(trained.encode(["car"]), expected.encode(["car"]), rtol=0, atol=2e-3)


def test_without_weights_it_is_random_and_always_the_same(clip: Callable, capfd: pytest.CaptureFixture):
    clip("small-vit")
    state = torch.get_rng_state()
    first = OpenCLIPTextEncoder("small-vit").encode(["car", "sky"])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    second = OpenCLIPTextEncoder("small-vit")
    assert torch.equal(second.encode(["car", "sky"]), first)
    assert second.provenance()["pretrained"] == "random"


def test_the_log_says_that_weights_are_random(clip: Callable, monkeypatch: pytest.MonkeyPatch):
    clip("small-vit")
    logged: list[str] = []
    target = "mtadapt.models.text.open_clip_encoder.print_log"
    monkeypatch.setattr(target, lambda message, **_: logged.append(message))
    OpenCLIPTextEncoder("small-vit").load()
    assert logged == ["OpenCLIPTextEncoder: small-vit has random weights; set pretrained to a tag or a file"]


def test_a_tag_brings_its_activation(clip: Callable, monkeypatch: pytest.MonkeyPatch):
    """OpenAI's weights were trained with QuickGELU, which open_clip's plain model names do not have."""
    model, path = clip("small-vit-quickgelu")
    tag = dict(open_clip.get_pretrained_cfg("ViT-B-32", "openai"))
    assert tag["quick_gelu"]
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda model, name: tag if name == "openai" else {})
    monkeypatch.setattr(open_clip, "download_pretrained", lambda config: path)
    encoder = OpenCLIPTextEncoder("small-vit", "openai")
    torch.testing.assert_close(encoder.encode(TEXTS), reference(model, "small-vit-quickgelu", TEXTS), rtol=0, atol=1e-5)
    assert encoder.provenance()["pretrained"] == "openai"
    assert encoder.fingerprint() == OpenCLIPTextEncoder("small-vit-quickgelu", path).fingerprint()
    assert encoder.fingerprint() != OpenCLIPTextEncoder("small-vit", path).fingerprint()


@pytest.mark.slow
def test_real_architectures_take_checkpoints_of_the_public_layout(tmp_path: Path):
    for name, dims in (("ViT-B-32", 512), ("RN50", 1024)):
        model = open_clip.create_model(name).eval()
        torch.save(model.state_dict(), tmp_path / "model.pt")
        encoder = OpenCLIPTextEncoder(name, str(tmp_path / "model.pt"))
        torch.testing.assert_close(encoder.encode(TEXTS), reference(model, name, TEXTS), rtol=0, atol=1e-5)
        found = encoder.encode_with_contexts(encoder.context_vectors("a photo of a"), ["car."])
        torch.testing.assert_close(found, reference(model, name, TEXTS[:1]), rtol=0, atol=1e-5)
        assert (encoder.embed_dims, encoder.token_dims) == (dims, 512)


# Errors


def test_an_unknown_model_names_the_nearest():
    with pytest.raises(MTAdaptError, match=r"no model='ViT-B-31'; nearest: ViT-B-3"):
        OpenCLIPTextEncoder("ViT-B-31")
    with pytest.raises(MTAdaptError, match=r"no model='qqq'; see open_clip\.list_models\(\)"):
        OpenCLIPTextEncoder("qqq")


def test_an_unknown_tag_lists_the_tags(clip: Callable):
    with pytest.raises(
        MTAdaptError, match=r"'laion2' is neither a tag of RN50 \(it has: openai, yfcc15m, .*\) nor a file"
    ):
        OpenCLIPTextEncoder("RN50", "laion2")
    clip("small-vit")
    with pytest.raises(MTAdaptError, match=r"of small-vit \(it has: none\) nor a file"):
        OpenCLIPTextEncoder("small-vit", "openai")


def test_a_missing_file_is_named_when_it_is_needed(clip: Callable):
    clip("small-vit")
    encoder = OpenCLIPTextEncoder("small-vit", "/nowhere/clip.pt")
    with pytest.raises(MTAdaptError, match=r"pretrained='/nowhere/clip.pt' is no file"):
        encoder.encode(["car"])


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch):
    def refuse(config: dict) -> str:
        raise RuntimeError("no route\nto the host")

    monkeypatch.setattr(open_clip, "download_pretrained", refuse)
    expected = (
        r"weights of RN50, pretrained='openai', cannot be fetched \(RuntimeError: no route\); set pretrained to a "
        "local file, or text_encoder to PrecomputedTextEmbeddings$"
    )
    with pytest.raises(MTAdaptError, match=expected):
        OpenCLIPTextEncoder("RN50", "openai").load()


@pytest.mark.parametrize(
    ("of", "message"),
    [
        ("small-resnet", r"1 entries do not match, first 'text_projection' \(in the file 32x40, in the tower 32x24\)"),
        ("small-coca", r"1 entries do not match, first 'cls_emb' \(in the file 32, in the tower missing\)"),
        ("small-deep", r"12 entries do not match, first 'transformer.resblocks.3.ln_1.weight' \(in the file 32, in"),
    ],
)
def test_a_checkpoint_of_another_tower_is_refused(clip: Callable, of: str, message: str):
    clip("small-vit")
    encoder = OpenCLIPTextEncoder("small-vit", clip(of)[1])
    with pytest.raises(MTAdaptError, match=rf"another text tower than model='small-vit': {message}"):
        encoder.load()


def test_a_checkpoint_without_a_tower_is_refused(clip: Callable, tmp_path: Path):
    clip("small-vit")
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(MTAdaptError, match=r"first 'positional_embedding' \(in the file missing, in the tower 77x32\)"):
        OpenCLIPTextEncoder("small-vit", str(tmp_path / "resnet.pth")).load()


class Custom:
    """Something that only an unsafe load could read."""


@pytest.mark.parametrize("content", ["pickled", "junk", "empty"])
def test_files_that_are_no_plain_tensors_are_refused(clip: Callable, tmp_path: Path, content: str):
    clip("small-vit")
    path = tmp_path / "model.pt"
    if content == "pickled":
        torch.save(dict(state_dict=Custom()), path)
    else:
        path.write_bytes(b"junk" if content == "junk" else b"")
    with pytest.raises(MTAdaptError, match=r"model\.pt is no checkpoint of plain tensors \(.+\); save the model's"):
        OpenCLIPTextEncoder("small-vit", str(path)).load()


@pytest.mark.parametrize("name", ["small-sigmoid", "small-coca"])
def test_towers_without_contexts_say_so(clip: Callable, name: str):
    encoder = OpenCLIPTextEncoder(name, clip(name)[1])
    with pytest.raises(MTAdaptError, match=r"OpenCLIPTextEncoder takes no learnable contexts: set contexts=None"):
        encoder.encode_with_contexts(torch.zeros(4, 32), ["car"])


def test_too_long_a_sequence_is_refused(encoder: OpenCLIPTextEncoder):
    with pytest.raises(
        MTAdaptError, match=r"contexts of length 75 and a text of 3 tokens are longer than the 77 tokens"
    ):
        encoder.encode_with_contexts(torch.zeros(75, 32), ["car"])
    assert encoder.encode_with_contexts(torch.zeros(74, 32), ["car"]).isfinite().all()
