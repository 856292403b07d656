"""Text vectors of all tasks: constant, trained and folded."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from mmengine.model import ExponentialMovingAverage
from mmengine.runner.checkpoint import get_state_dict
from torch import nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.text import (
    LanguagePriors,
    PrecomputedTextEmbeddings,
    TaskPrompts,
    parse_prompts,
)
from tests.test_models.test_text.priors import (
    FIXED,
    KEYS,
    LEARNT,
    PACKAGED,
    assert_same,
    counted,
    learnt,
    no_encoder,
    train,
    unfolded,
)

# Fixed prompts


def test_fixed_prompts_are_computed_once_and_the_encoder_is_dropped():
    priors = LanguagePriors(FIXED, PACKAGED)
    assert not priors.text_encoder.loaded and not priors.learnable and priors.embed_dims == 384
    assert priors.classes == dict(det=("car", "truck"), drivable=("direct", "background"))
    priors.init_weights()
    assert not priors.text_encoder.loaded and list(priors.parameters()) == []
    encoder = PrecomputedTextEmbeddings()
    expected = {task: TaskPrompts(task, encoder=encoder, **s)(encoder) for task, s in parse_prompts(FIXED).items()}
    with no_encoder():
        for mode in (True, False):
            assert_same(priors.train(mode)(), expected, atol=0)


def test_an_encoder_that_was_given_is_left_as_it_is():
    encoder = PrecomputedTextEmbeddings()
    LanguagePriors(FIXED, encoder).init_weights()
    assert encoder.loaded


def test_without_initialisation_the_first_call_computes_them():
    priors = LanguagePriors(FIXED, PACKAGED).eval()
    assert not priors.vectors_det.any()
    expected = LanguagePriors(FIXED, PACKAGED)
    expected.init_weights()
    assert_same(priors(), expected(), atol=0)


def test_a_missing_text_is_named_before_training():
    priors = LanguagePriors(dict(det=["car", "unicorn"]), PACKAGED)
    with pytest.raises(MTAdaptError, match="no vector of 'unicorn'"):
        priors.init_weights()


# Learnable contexts


def test_the_tower_is_no_part_of_the_module(small: dict):
    priors = learnt(small)
    contexts = {f"prompts.{task}.contexts" for task in LEARNT}
    assert {name for name, _ in priors.named_parameters()} == contexts
    assert priors.state_dict().keys() == KEYS | contexts
    assert priors.text_encoder.loaded and not any(priors.text_encoder is one for one in priors.modules())


def test_training_runs_the_tower_once_for_all_tasks_and_reaches_the_contexts_alone(small: dict):
    priors = learnt(small)
    tower = {name: value.clone() for name, value in priors.text_encoder.state_dict().items()}
    with counted() as sizes:
        vectors = priors.train()()
    assert sizes == [6]  # car, automobile, truck; road, sky, car
    assert_same(vectors, unfolded(priors))
    vectors["det"].sum().backward()
    assert priors.prompts["det"].contexts.grad.any() and not (priors.prompts["sem_seg"].contexts.grad).any()
    before = priors.prompts["det"].contexts.detach().clone()
    train(priors)
    assert not torch.equal(priors.prompts["det"].contexts, before)
    assert all(p.grad is None and not p.requires_grad for p in priors.text_encoder.parameters())
    assert all(torch.equal(value, tower[name]) for name, value in priors.text_encoder.state_dict().items())


def test_contexts_of_two_lengths_and_fixed_prompts_side_by_side(small: dict):
    prompts = LEARNT | dict(drivable=["direct", "background"])
    prompts["det"] = dict(LEARNT["det"], contexts=dict(length=3))
    priors = learnt(small, prompts)
    with counted() as sizes:
        vectors = priors.train()()
    assert sizes == [3, 3]
    assert_same(vectors, unfolded(priors))
    assert vectors["drivable"].grad_fn is None and vectors["det"].grad_fn is not None


def test_inference_is_folded_and_equals_what_training_computed(small: dict):
    priors = learnt(small)
    train(priors)
    expected = priors()
    priors.eval()
    with no_encoder():
        assert_same(priors(), expected)
    assert all(vectors.grad_fn is None for vectors in priors().values())
    train(priors, 1)
    assert_same(priors.eval()(), unfolded(priors))


@pytest.mark.parametrize("take", [nn.Module.state_dict, get_state_dict])
def test_a_state_that_is_saved_during_training_has_vectors_of_its_contexts(small: dict, take: Callable):
    priors = learnt(small)
    train(priors)
    state = copy.deepcopy(take(priors))
    assert priors.training
    assert_same({task: state[f"vectors_{task}"] for task in LEARNT}, unfolded(priors))
    train(priors)
    assert_same({task: take(priors)[f"vectors_{task}"] for task in LEARNT}, unfolded(priors))


def test_frozen_contexts_are_constants(small: dict):
    priors = learnt(small)
    train(priors)
    priors.requires_grad_(False)
    vectors = priors.train()()  # folds what the steps before have changed
    assert_same(vectors, unfolded(priors))
    with no_encoder():
        again = priors()
    assert_same(again, vectors, atol=0)
    assert all(one.grad_fn is None for one in again.values())


def test_contexts_begin_with_a_phrase_in_every_way_to_start(small: dict):
    prompts = dict(det=dict(classes=["car"], contexts=dict(length=4, init="a photo of a")))
    written = LanguagePriors(dict(det=dict(classes=["car"], templates=["a photo of a {}"])), small)
    torch.testing.assert_close(learnt(small, prompts)()["det"], written()["det"], rtol=0, atol=1e-5)
    lazily = LanguagePriors(prompts, small).train()
    torch.testing.assert_close(lazily()["det"], written()["det"], rtol=0, atol=1e-5)


def test_copies_share_the_tower(small: dict):
    priors = learnt(small)
    clone = copy.deepcopy(priors)
    assert clone.text_encoder is priors.text_encoder
    train(clone)
    assert_same(clone.eval()(), unfolded(clone))
    assert_same(priors.eval()(), unfolded(priors))
    assert not torch.allclose(clone()["det"], priors()["det"])


def test_an_average_of_models_saves_the_vectors_of_its_own_contexts(small: dict):
    """EMAHook copies the model before it is initialised."""
    priors = LanguagePriors(LEARNT, small)
    average = ExponentialMovingAverage(priors, momentum=0.5)
    priors.init_weights()
    for _ in range(3):
        train(priors, 1)
        average.update_parameters(priors)
    contexts = average.module.prompts["det"].contexts.detach().clone()
    state = average.module.state_dict()
    assert torch.equal(state["prompts.det.contexts"], contexts)
    assert not torch.allclose(state["prompts.det.contexts"], priors.prompts["det"].contexts)
    assert_same({task: state[f"vectors_{task}"] for task in LEARNT}, unfolded(average.module))
