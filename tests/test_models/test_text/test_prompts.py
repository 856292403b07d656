"""Class names as texts, and the mean over them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from mmengine.config import ConfigDict
from torch.nn import functional as F

from mtadapt.errors import MTAdaptError
from mtadapt.models.text import OpenCLIPTextEncoder, PrecomputedTextEmbeddings, TaskPrompts, parse_prompts


@pytest.fixture(scope="module")
def packaged() -> PrecomputedTextEmbeddings:
    return PrecomputedTextEmbeddings()


def test_bare_names_are_what_the_encoder_gives(packaged: PrecomputedTextEmbeddings):
    prompts = TaskPrompts("det", ["car", "truck"], packaged)
    assert prompts.texts == prompts.classes == ("car", "truck")
    assert torch.equal(prompts(packaged), packaged.encode(["car", "truck"]))
    assert not prompts.learnable and list(prompts.parameters()) == []


def test_synonyms_and_templates_are_averaged(packaged: PrecomputedTextEmbeddings):
    prompts = TaskPrompts(
        "det",
        ["pedestrian", "car"],
        packaged,
        templates=["{}", "a photo of a {}."],
        synonyms=dict(pedestrian=["person", "pedestrian"]),
    )
    texts = ["pedestrian", "a photo of a pedestrian.", "person", "a photo of a person."]
    assert prompts.texts == (*texts, "car", "a photo of a car.")
    expected = [packaged.encode(some).mean(0) for some in (texts, ["car", "a photo of a car."])]
    torch.testing.assert_close(prompts(packaged), F.normalize(torch.stack(expected), dim=1))


def test_one_synonym_makes_as_many_texts_as_classes_only_if_they_are_the_classes(packaged: PrecomputedTextEmbeddings):
    """Two classes with three texts, and three classes with three texts."""
    two = TaskPrompts("det", ["car", "bus"], packaged, synonyms=dict(car=["truck"]))
    three = TaskPrompts("det", ["car", "truck", "bus"], packaged)
    assert two(packaged).shape == (2, 384)
    vectors = three(packaged)
    expected = F.normalize((vectors[0] + vectors[1]) / 2, dim=0)
    torch.testing.assert_close(two(packaged), torch.stack([expected, vectors[2]]))


@pytest.mark.parametrize("per_class", [False, True])
def test_contexts_stand_before_every_text(encoder: OpenCLIPTextEncoder, per_class: bool):
    """With a phrase's embeddings as contexts it is the same as the phrase in the template."""
    synonyms = dict(car=["automobile"])
    contexts = dict(length=4, per_class=per_class, init="a photo of a")
    settings = dict(classes=["car", "sky"], encoder=encoder, synonyms=synonyms)
    prompts = TaskPrompts("det", templates=["{}.", "small {}."], contexts=contexts, **settings)
    assert prompts.contexts.shape == ((2, 4, 32) if per_class else (4, 32))
    prompts.init_contexts(encoder)
    written = TaskPrompts("det", templates=["a photo of a {}.", "a photo of a small {}."], **settings)
    torch.testing.assert_close(prompts(encoder), written(encoder), rtol=0, atol=1e-5)
    weight = torch.randn(24, generator=torch.Generator().manual_seed(0))
    (prompts(encoder)[0] @ weight).backward()
    touched = prompts.contexts.grad.flatten(-2).any(-1)
    assert touched.tolist() == ([True, False] if per_class else True)


def test_contexts_begin_as_in_coop(encoder: OpenCLIPTextEncoder):
    torch.manual_seed(0)
    prompts = TaskPrompts("det", [f"class {n}" for n in range(40)], encoder, contexts=dict(length=16, per_class=True))
    assert prompts.contexts.shape == (40, 16, 32)
    assert prompts.contexts.std().item() == pytest.approx(0.02, rel=0.02)
    assert prompts.contexts.mean().item() == pytest.approx(0, abs=0.001)
    assert prompts.learnable and prompts.trains
    assert not prompts.requires_grad_(False).trains
    assert TaskPrompts("det", ["car"], encoder, contexts={}).contexts.shape == (8, 32)
    assert not encoder.loaded


def test_the_encoder_is_no_part_of_it(encoder: OpenCLIPTextEncoder):
    encoder.load()
    prompts = TaskPrompts("det", ["car"], encoder, contexts=dict(length=2))
    assert [name for name, _ in prompts.named_parameters()] == ["contexts"]


def test_the_fingerprint_is_that_of_texts_classes_and_contexts(encoder: OpenCLIPTextEncoder):
    cases = [
        dict(classes=["car", "van"]),
        dict(classes=["van", "car"]),
        dict(classes=["car"], synonyms=dict(car=["van"])),
        dict(classes=["car", "van"], templates=["a {}"]),
        dict(classes=["car", "van"], contexts=dict(length=4)),
        dict(classes=["car", "van"], contexts=dict(length=4, per_class=True)),
    ]
    prints = [TaskPrompts("det", encoder=encoder, **case).fingerprint() for case in cases]
    assert len(set(prints)) == len(cases)
    assert TaskPrompts("other", encoder=encoder, **cases[0]).fingerprint() == prints[0]


def test_tables_are_parsed():
    table = ConfigDict(det=["car"], sem_seg=dict(classes=("road", "sky"), templates=["a {}"], contexts=None))
    parsed = parse_prompts(table)
    assert parsed == dict(
        det=dict(classes=["car"]), sem_seg=dict(classes=("road", "sky"), templates=["a {}"], contexts=None)
    )


# Errors


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(classes=["car", "car"]), r"prompts of task 'det': classes: 'car' is there twice$"),
        (dict(classes=[]), r"prompts of task 'det': classes=\[\]: write a list of texts$"),
        (dict(classes="car"), r"prompts of task 'det': classes='car': write a list of texts$"),
        (dict(classes=["car", " "]), r"prompts of task 'det': classes: ' ' is no text$"),
        (dict(classes=["car", 3]), r"prompts of task 'det': classes: 3 is no text$"),
        (dict(templates=["a car"]), r"prompts of task 'det': template 'a car' has no \{\} for the class name$"),
        (dict(templates="a {}"), r"prompts of task 'det': templates='a \{\}': write a list of texts$"),
        (
            dict(synonyms=dict(lorry=["truck"])),
            r"prompts of task 'det': synonyms name the unknown class 'lorry'; known: car, sky$",
        ),
        (dict(synonyms=dict(car="van")), r"prompts of task 'det': synonyms of 'car'='van': write a list of texts$"),
        (dict(synonyms=["van"]), r"prompts of task 'det': synonyms=\['van'\] is no table of class name: \[further"),
        (dict(contexts=4), r"prompts of task 'det': contexts=4 is no dict; write dict\(length=8\), or None for fixed"),
        (dict(contexts=dict(len=4)), r"contexts has the unknown setting 'len'; known: length, per_class, init$"),
        (dict(contexts=dict(length=0)), r"contexts: length=0, write a number of vectors of at least 1$"),
        (dict(contexts=dict(length="4")), r"contexts: length='4', write a number of vectors of at least 1$"),
    ],
)
def test_mistakes_are_named(encoder: OpenCLIPTextEncoder, settings: dict, message: str):
    with pytest.raises(MTAdaptError, match=message):
        TaskPrompts("det", encoder=encoder, **{"classes": ["car", "sky"], **settings})


def test_a_phrase_of_another_length_than_the_contexts(encoder: OpenCLIPTextEncoder):
    prompts = TaskPrompts("det", ["car"], encoder, contexts=dict(init="a photo of a"))
    expected = r"'det': contexts: init='a photo of a' has 4 tokens, length is 8; set length=4$"
    with pytest.raises(MTAdaptError, match=expected):
        prompts.init_contexts(encoder)


def test_contexts_need_an_encoder_that_takes_them(packaged: PrecomputedTextEmbeddings):
    expected = (
        r"'det': contexts need a text encoder that takes them, PrecomputedTextEmbeddings does not: use an OpenCLIP"
    )
    with pytest.raises(MTAdaptError, match=expected):
        TaskPrompts("det", ["car"], packaged, contexts=dict(length=4))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, r"^prompts=\{\}: write a table of task: \[class names\]$"),
        (["car"], r"^prompts=\['car'\]: write a table"),
        ({"lane-marking": ["a"]}, r"^prompts: task 'lane-marking' is no name; use letters, digits and underscores$"),
        (
            dict(det=dict(names=["a"])),
            r"^prompts of task 'det': unknown setting 'names'; known: classes, templates, syn",
        ),
        (dict(det=dict(templates=["{}"])), r"^prompts of task 'det': classes are missing, write classes=\[names\]$"),
    ],
)
def test_mistakes_in_tables_are_named(table: dict | Sequence, message: str):
    with pytest.raises(MTAdaptError, match=message):
        parse_prompts(table)  # type: ignore[arg-type]
