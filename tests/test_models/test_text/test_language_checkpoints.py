"""Text vectors of all tasks: saved and loaded, by hand and by the runner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.runner.checkpoint import load_checkpoint

from mtadapt.errors import MTAdaptError
from mtadapt.models.text import (
    LanguagePriors,
    SentenceTextEncoder,
)
from mtadapt.models.text import language as module
from mtadapt.registry import MODELS
from tests.test_models.test_text.priors import (
    FIXED,
    LEARNT,
    PACKAGED,
    assert_same,
    learnt,
    no_encoder,
    train,
    unfolded,
)


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
    assert_same(priors.train()(), unfolded(priors))
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
