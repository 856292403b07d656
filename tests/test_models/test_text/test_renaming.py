"""Other names for the classes at inference: vectors, features, and what they leave alone."""

from __future__ import annotations

import pytest
import torch

from mtadapt.errors import MTAdaptError
from mtadapt.models import LVAdapter
from mtadapt.models.text import (
    LanguagePriors,
    PrecomputedTextEmbeddings,
    SentenceTextEncoder,
    find_renaming_encoder,
    write_embeddings,
)
from mtadapt.registry import MODELS
from tests.test_models.test_text.priors import LEARNT, PACKAGED, learnt, train

NAMES = dict(det=["car", "truck"], sem_seg=["road", "sky", "car"])


def adapter() -> LVAdapter:
    torch.manual_seed(0)
    settings = dict(in_channels=[8, 16], prompts=NAMES, text_encoder=dict(PACKAGED), embed_channels=12, gate=0.5)
    module = MODELS.build(dict(type="mtadapt.LVAdapter", **settings))
    module.init_weights()
    return module.eval()


@torch.no_grad()
def outputs(module: LVAdapter) -> tuple[list[torch.Tensor], list[dict]]:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(1, 8, 6, 10, generator=generator), torch.randn(1, 16, 3, 5, generator=generator)]
    features, scores = module.forward_with_scores(maps)
    return list(features), scores


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(a.equal(b) for a, b in zip(one, other, strict=True))


def test_the_same_names_give_the_same_features_to_the_bit_and_other_names_others():
    module = adapter()
    before, scores_before = outputs(module)
    module.set_classes("det", ["car", "truck"])
    assert same(outputs(module)[0], before)
    module.set_classes("det", ["car", "bus"])
    features, scores = outputs(module)
    assert not same(features, before)
    assert scores[0]["sem_seg"].equal(scores_before[0]["sem_seg"])
    assert scores[0]["det"][:, 0].equal(scores_before[0]["det"][:, 0])
    assert not scores[0]["det"][:, 1].allclose(scores_before[0]["det"][:, 1])
    module.set_classes("det", ("car", "truck"))
    assert same(outputs(module)[0], before)


def test_a_renamed_class_is_what_a_model_with_that_prompt_has():
    """The whole table of a model that was built with the new names."""
    priors = LanguagePriors(NAMES, dict(PACKAGED)).eval()
    priors.set_classes("sem_seg", ["road", "truck", "bus"])
    expected = LanguagePriors(dict(NAMES, sem_seg=["road", "truck", "bus"]), dict(PACKAGED)).eval()()
    assert priors()["sem_seg"].equal(expected["sem_seg"]) and priors()["det"].equal(expected["det"])
    assert priors.names_in_use("sem_seg") == ("road", "truck", "bus")
    assert priors.names_in_use("det") == ("car", "truck")


def test_templates_stay_and_synonyms_of_a_renamed_class_go():
    table = dict(
        det=dict(
            classes=["car", "truck"],
            templates=["{}", "a photo of a {}."],
            synonyms=dict(car=["sedan"], truck=["lorry"]),
        )
    )
    priors = LanguagePriors(table, dict(PACKAGED)).eval()
    before = priors()["det"].clone()
    priors.set_classes("det", ["car", "bus"])
    encoder = PrecomputedTextEmbeddings()
    expected = torch.nn.functional.normalize(encoder.encode(["bus", "a photo of a bus."]).mean(0), dim=0)
    torch.testing.assert_close(priors()["det"][1], expected)
    assert priors()["det"][0].equal(before[0])


@pytest.mark.parametrize("task", ["det", "sem_seg"])
def test_learnt_contexts_stand_before_the_new_name(small: dict, task: str):
    """Shared ones (det) and those of the class (sem_seg), after training."""
    priors = learnt(small)
    train(priors)
    priors.eval()
    names = [*LEARNT[task]["classes"]]
    names[1] = "bicycle"
    priors.set_classes(task, names)
    contexts = priors.prompts[task].contexts.detach()
    own = contexts if contexts.dim() == 2 else contexts[1]
    expected = priors.text_encoder.encode_with_contexts(own, ["bicycle"])[0]
    torch.testing.assert_close(priors()[task][1], expected)


def test_nothing_of_it_is_trained_or_saved_and_a_loaded_state_ends_it():
    priors = LanguagePriors(NAMES, dict(PACKAGED)).eval()
    state = {name: value.clone() for name, value in priors.state_dict().items()}
    before = priors()["det"].clone()
    state = {name: value.clone() for name, value in priors.state_dict().items()}
    priors.set_classes("det", ["bus", "truck"])
    assert not priors()["det"].equal(before)
    assert all(value.equal(state[name]) for name, value in priors.state_dict().items())
    assert priors.train()()["det"].equal(before)
    assert not priors.eval()()["det"].equal(before)
    priors.load_state_dict(state)
    assert priors()["det"].equal(before) and priors.names_in_use("det") == ("car", "truck")


@pytest.mark.parametrize(
    ("task", "names", "message"),
    [
        ("det", ["car"], "task 'det': 1 names, the head has 2 classes: write as many"),
        ("det", ["car", "truck", "bus"], "task 'det': 3 names, the head has 2 classes: write as many"),
        ("det", ["car", " "], "names of task 'det': ' ' is no text"),
        ("det", ["car", "car"], "names of task 'det': 'car' is there twice"),
        ("cls", ["car"], "set_classes: task 'cls' has no prompts; prompts are of det, sem_seg"),
        ("det", ["car", "spaceship"], "has no vector of 'spaceship'"),
    ],
)
def test_refused_names_change_nothing(task: str, names: list[str], message: str):
    module = adapter()
    before, _ = outputs(module)
    with pytest.raises(MTAdaptError, match=message.replace("(", r"\(")):
        module.set_classes(task, names)
    assert same(outputs(module)[0], before)


def test_the_sentence_encoder_stands_in_for_the_packaged_file():
    priors = LanguagePriors(NAMES, dict(PACKAGED)).eval()
    encoder = find_renaming_encoder(priors)
    assert isinstance(encoder, SentenceTextEncoder)
    priors.set_classes("det", ["car", "spaceship"], encoder)
    torch.testing.assert_close(priors()["det"][1], encoder.encode(["spaceship"])[0])
    # The table has the vector of "bus", to half precision.
    priors.set_classes("det", ["car", "bus"], encoder)
    torch.testing.assert_close(priors()["det"][1], PrecomputedTextEmbeddings().encode(["bus"])[0], rtol=0, atol=2e-3)


def test_the_encoder_of_the_model_is_taken_where_it_takes_any_text(small: dict):
    priors = learnt(small).eval()
    assert find_renaming_encoder(priors) is priors.text_encoder


def test_a_table_of_another_encoder_has_no_stand_in(tmp_path):
    for dims in (384, 24):
        vectors = torch.nn.functional.normalize(torch.randn(4, dims), dim=1)
        write_embeddings(tmp_path / f"{dims}.safetensors", ["car", "truck", "road", "sky"], vectors, {})
        priors = LanguagePriors(
            NAMES, dict(type="PrecomputedTextEmbeddings", path=str(tmp_path / f"{dims}.safetensors"))
        )
        with pytest.raises(MTAdaptError, match="are not those of the sentence encoder, which would have to encode"):
            find_renaming_encoder(priors.eval())


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mtadapt.models.text.sentence_encoder.find_spec", lambda name: None)
    with pytest.raises(MTAdaptError, match="needs the extra 'text'"):
        find_renaming_encoder(LanguagePriors(NAMES, dict(PACKAGED)).eval())
