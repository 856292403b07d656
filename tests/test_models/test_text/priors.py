"""Text vectors of two tasks, what trains them, and what they are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from mtadapt.models.text import LanguagePriors, OpenCLIPTextEncoder, PrecomputedTextEmbeddings, TextEncoder

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
