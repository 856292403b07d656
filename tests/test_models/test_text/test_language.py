"""Text vectors of all tasks: constant, trained, folded, saved and loaded."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel, ExponentialMovingAverage
from mmengine.runner import Runner
from mmengine.runner.checkpoint import get_state_dict, load_checkpoint
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.text import (
    LanguagePriors,
    OpenCLIPTextEncoder,
    PrecomputedTextEmbeddings,
    SentenceTextEncoder,
    TaskPrompts,
    TextEncoder,
)
from mtadapt.models.text import language as module
from mtadapt.registry import MODELS

PACKAGED = dict(type="PrecomputedTextEmbeddings")
FIXED = dict(
    det=["car", "truck"], drivable=dict(classes=["direct", "background"], templates=["{}", "a photo of a {}."])
)
CONTEXTS = dict(length=4, init="a photo of a")
LEARNT = dict(
    det=dict(classes=["car", "truck"], contexts=CONTEXTS, synonyms=dict(car=["automobile"])),
    sem_seg=dict(classes=["road", "sky", "car"], contexts=dict(length=4, per_class=True)),
)
KEYS = {f"{kind}_{task}" for kind in ("vectors", "texts") for task in LEARNT} | {"text_encoder_fingerprint"}


@pytest.fixture
def small(clip: Callable) -> dict:
    """Config of a small CLIP text tower."""
    return dict(type="mtadapt.OpenCLIPTextEncoder", model="small-vit", pretrained=clip("small-vit")[1])


@pytest.fixture
def other(clip: Callable) -> dict:
    """One of the same size with other weights."""
    return dict(type="OpenCLIPTextEncoder", model="small-vit", pretrained=None)


def learnt(encoder: dict | TextEncoder, prompts: dict = LEARNT, seed: int = 0) -> LanguagePriors:
    torch.manual_seed(seed)
    priors = LanguagePriors(prompts, encoder)
    priors.init_weights()
    return priors


def train(priors: LanguagePriors, steps: int = 2) -> None:
    optimizer = torch.optim.SGD(priors.parameters(), lr=1.0)
    for _ in range(steps):
        vectors = priors.train()()
        optimizer.zero_grad()
        sum((one * torch.arange(float(one.numel())).view_as(one)).sum() for one in vectors.values()).backward()
        optimizer.step()


def unfolded(priors: LanguagePriors) -> dict[str, Tensor]:
    """Each task by itself, from its contexts as they are."""
    with torch.no_grad():
        return {task: prompts(priors.text_encoder) for task, prompts in priors.prompts.items()}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], atol: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for task, vectors in expected.items():
        torch.testing.assert_close(found[task].detach(), vectors.detach(), rtol=0, atol=atol)


@contextmanager
def no_encoder() -> Iterator[None]:
    """Fail where any encoder is loaded or run."""

    def refuse(*_: object) -> None:
        raise AssertionError("the text encoder was asked")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("load", "encode", "encode_with_contexts", "fingerprint"):
            patch.setattr(TextEncoder, name, refuse)
        for kind in (OpenCLIPTextEncoder, PrecomputedTextEmbeddings):
            patch.setattr(kind, "fingerprint", refuse)
        yield


@contextmanager
def counted() -> Iterator[list[int]]:
    """Number of texts of each run with contexts."""
    sizes: list[int] = []
    original = TextEncoder.encode_with_contexts

    def count(self: TextEncoder, contexts: Tensor, names: list[str]) -> Tensor:
        sizes.append(len(names))
        return original(self, contexts, names)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TextEncoder, "encode_with_contexts", count)
        yield sizes


# Fixed prompts


def test_fixed_prompts_are_computed_once_and_the_encoder_is_dropped():
    priors = LanguagePriors(FIXED, PACKAGED)
    assert not priors.text_encoder.loaded and not priors.learnable and priors.embed_dims == 384
    assert priors.classes == dict(det=("car", "truck"), drivable=("direct", "background"))
    priors.init_weights()
    assert not priors.text_encoder.loaded and list(priors.parameters()) == []
    encoder = PrecomputedTextEmbeddings()
    expected = {
        task: TaskPrompts(task, encoder=encoder, **s)(encoder) for task, s in module.parse_prompts(FIXED).items()
    }
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


# Checkpoints


@pytest.mark.parametrize("load", ["torch", "mmengine"])
@pytest.mark.parametrize("prompts", [FIXED, LEARNT], ids=["fixed", "learnt"])
def test_inference_from_a_checkpoint_needs_no_encoder(small: dict, tmp_path: Path, prompts: dict, load: str):
    trained = learnt(small, prompts)
    if trained.learnable:
        train(trained)
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / "epoch.pth")
    expected = trained.eval()()
    with no_encoder():
        priors = LanguagePriors(prompts, dict(small, pretrained="/nowhere/clip.pt"))
        if load == "torch":
            priors.load_state_dict(torch.load(tmp_path / "epoch.pth")["state_dict"])
        else:
            load_checkpoint(priors, str(tmp_path / "epoch.pth"))
        priors.eval()
        assert_same(priors(), expected, atol=0)
        assert priors.state_dict().keys() == trained.state_dict().keys()


def test_training_goes_on_from_a_checkpoint(small: dict):
    trained = learnt(small)
    train(trained)
    priors = learnt(small, seed=1)
    priors.load_state_dict(trained.state_dict())
    train(trained)
    train(priors)
    assert_same(priors.eval()(), trained.eval()())


def test_contexts_of_another_tower_serve_inference_but_no_training(small: dict, other: dict):
    trained = learnt(small)
    expected = trained.eval()()
    message = (
        r"^the checkpoint's text vectors are of another text encoder \(fingerprint [0-9a-f]{12}\) than "
        r"text_encoder=OpenCLIPTextEncoder \(fingerprint [0-9a-f]{12}\); set text_encoder to the model and weights"
    )
    for initialise in (True, False):
        priors = LanguagePriors(LEARNT, other)
        if initialise:
            priors.init_weights()
        priors.load_state_dict(trained.state_dict())
        assert_same(priors.eval()(), expected, atol=0)
        with pytest.raises(MTAdaptError, match=message):
            priors.train()()


def test_fixed_vectors_of_another_encoder_serve_inference_but_no_training(small: dict, other: dict):
    trained, priors = learnt(small, FIXED), learnt(other, FIXED)
    priors.load_state_dict(trained.state_dict())
    assert_same(priors.eval()(), trained(), atol=0)
    with pytest.raises(MTAdaptError, match="another text encoder"):
        priors.train()()


def test_a_file_of_vectors_stands_for_the_encoder_that_wrote_it():
    trained = LanguagePriors(dict(det=["car", "truck"]), SentenceTextEncoder())
    trained.init_weights()
    priors = LanguagePriors(dict(det=["car", "truck"]), PACKAGED)
    priors.init_weights()
    priors.load_state_dict(trained.state_dict())
    assert_same(priors.train()(), trained(), atol=0)


def test_vectors_of_another_length_are_refused(small: dict, clip: Callable):
    trained = learnt(small)
    wide = dict(small, model="small-resnet", pretrained=clip("small-resnet")[1])
    message = (
        r"^the checkpoint is of another text encoder: its vectors of task 'det' are 24 long, those of "
        r"text_encoder=OpenCLIPTextEncoder 40; set text_encoder to the model"
    )
    with pytest.raises(MTAdaptError, match=message):
        LanguagePriors(LEARNT, wide).load_state_dict(trained.state_dict())
    state = trained.state_dict() | {"prompts.det.contexts": torch.zeros(4, 48)}
    with pytest.raises(MTAdaptError, match=r"its contexts of task 'det' are 48 long, those of .* 32; set"):
        LanguagePriors(LEARNT, small).load_state_dict(state)


@pytest.mark.parametrize("initialise", [True, False])
def test_vectors_of_other_prompts_are_computed_anew(small: dict, monkeypatch: pytest.MonkeyPatch, initialise: bool):
    logged: list[str] = []
    monkeypatch.setattr(module, "print_log", lambda message, **_: logged.append(message))
    changed = dict(LEARNT, det=dict(LEARNT["det"], classes=["truck", "car"]))
    priors = LanguagePriors(changed, small)
    if initialise:
        priors.init_weights()
    trained = learnt(small)
    train(trained)
    priors.load_state_dict(trained.state_dict())
    assert logged == ["The checkpoint has other prompts of task 'det': its text vectors are computed anew"]
    found, expected = priors.eval()(), trained.eval()()
    torch.testing.assert_close(found["det"], expected["det"].flip(0), rtol=0, atol=1e-6)
    assert torch.equal(found["sem_seg"], expected["sem_seg"])
    again = LanguagePriors(changed, small)
    again.load_state_dict(priors.state_dict())
    with no_encoder():
        assert_same(again.eval()(), found, atol=0)


def test_a_checkpoint_of_fixed_prompts_leaves_the_contexts_alone(small: dict):
    priors = learnt(small)
    train(priors)
    contexts = priors.prompts["det"].contexts.detach().clone()
    fixed = {task: {**settings, "contexts": None} for task, settings in LEARNT.items()}
    priors.load_state_dict(learnt(small, fixed).state_dict(), strict=False)
    assert_same(priors.eval()(), unfolded(priors))
    assert torch.equal(priors.prompts["det"].contexts, contexts)


def test_vectors_of_other_prompts_and_another_encoder_are_refused(small: dict, other: dict):
    trained = learnt(small, FIXED)
    priors = LanguagePriors(dict(FIXED, det=["truck", "car"]), other)
    priors.load_state_dict(trained.state_dict())
    with pytest.raises(MTAdaptError, match="another text encoder"):
        priors.eval()()


def test_a_state_from_before_the_initialisation_is_not_taken_for_vectors(small: dict):
    empty = LanguagePriors(FIXED, small)
    state = empty.state_dict()
    assert not empty.text_encoder.loaded
    priors = LanguagePriors(FIXED, small)
    priors.load_state_dict(state)
    assert_same(priors.eval()(), learnt(small, FIXED)(), atol=0)


class Toy(BaseModel):
    """A model whose loss pulls the classes of the two tasks apart."""

    def __init__(self, prompts: dict, text_encoder: dict) -> None:
        super().__init__()
        self.language = LanguagePriors(prompts, text_encoder)

    def forward(self, inputs: list, data_samples: object = None, mode: str = "tensor") -> object:
        vectors = self.language()
        if mode == "loss":
            return dict(loss=(vectors["det"].mean(0) @ vectors["sem_seg"].mean(0)) + 1)
        return [vectors]


def run(model: Toy, work_dir: Path, **settings: object) -> Runner:
    loader = dict(
        dataset=[dict(inputs=torch.zeros(1))] * 4,
        sampler=dict(type="mmengine.DefaultSampler", shuffle=False),
        collate_fn=dict(type="pseudo_collate"),
    )
    runner = Runner(
        model,
        str(work_dir),
        train_dataloader=loader,
        train_cfg=dict(by_epoch=True, max_epochs=1),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=10.0)),
        custom_hooks=[EMAHook(momentum=0.5), dict(type="mtadapt.CheckpointMatchHook")],
        experiment_name=f"{work_dir.name}_{id(model)}",
        default_scope="mtadapt",
        **settings,
    )
    runner.train()
    return runner


def test_runner_trains_saves_and_refuses_another_tower(small: dict, other: dict, tmp_path: Path):
    torch.manual_seed(0)
    run(Toy(LEARNT, small), tmp_path / "first")
    checkpoint = torch.load(tmp_path / "first/epoch_1.pth", weights_only=False)
    for state, prefix in ((checkpoint["state_dict"], ""), (checkpoint["ema_state_dict"], "module.")):
        priors = LanguagePriors(LEARNT, small)
        start = f"{prefix}language."
        priors.load_state_dict({name.removeprefix(start): v for name, v in state.items() if name.startswith(start)})
        assert_same({task: getattr(priors, f"vectors_{task}") for task in LEARNT}, unfolded(priors))
    before = Toy(LEARNT, small)
    before.init_weights()
    states = [checkpoint["state_dict"]["language.prompts.det.contexts"], before.language.prompts["det"].contexts]
    assert (states[0] - states[1]).abs().max() > 0.1
    with pytest.raises(MTAdaptError, match="another text encoder"):
        run(Toy(LEARNT, other), tmp_path / "second", load_from=str(tmp_path / "first/epoch_1.pth"))


def test_it_is_built_from_a_config(small: dict):
    priors = MODELS.build(dict(type="mtadapt.LanguagePriors", prompts=FIXED, text_encoder=small))
    assert isinstance(priors, LanguagePriors) and priors.embed_dims == 24
