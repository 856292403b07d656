"""Which layout a file has: the prefix and the names under which it has most of the backbone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor

from mtadapt.zoo.formats import efficientnet, resnet, swin, vit
from mtadapt.zoo.formats.method import method_of
from mtadapt.zoo.formats.naming import Entry, Naming, Rule, renamed

#: What may stand before the names of a backbone, alone or one behind the other, e.g. ``module.encoder_q.``. Where
#: several prefixes find equally much, the earlier words count: a teacher (of DINO) before its student. Momentum, key
#: and target encoders are not in the list: they are found by ``prefix`` alone.
WRAPPERS = (
    "teacher",
    "student",
    "online",
    "online_network",
    "online_network_state_dict",
    "online_encoder",
    "online_net",
    "online_backbone",
    "encoder_q",
    "base_encoder",
    "query_encoder",
    "backbone",
    "encoder",
    "state_dict",
    "model",
    "base_model",
    "trunk",
    "_feature_blocks",
    "feature_extractor",
    "visual",
    "vision_model",
    "image_encoder",
    "resnet",
    "convnet",
    "net",
    "module",
    "0",
)

SAME = Naming("names of the OpenMMLab libraries", (Rule("{rest}", "{rest}"),), library="mm")
#: Of two that find equally much the first counts.
NAMINGS: tuple[Naming, ...] = (*resnet.NAMINGS, SAME, *vit.NAMINGS, vit.MMSEG, *swin.NAMINGS, *efficientnet.NAMINGS)


@dataclass(frozen=True)
class Recognised:
    """The entries of a file for a backbone.

    Args:
        format: in words.
        prefix: what stands before the names of the backbone in the file.
        state: entries under the backbone's names, with the backbone's order of values.
        others: names of the entries of the file that are not in ``state``, without the prefix where they have it.
    """

    format: str
    prefix: str
    state: dict[str, Tensor]
    others: tuple[str, ...]


def recognise(weights: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str | None = None) -> Recognised | None:
    """Find the entries of a backbone in a file.

    All prefixes that consist of :data:`WRAPPERS` and all namings are tried; the pair counts that has most entries of
    the backbone in name and shape.

    Args:
        weights: of the file.
        own: entries of the backbone.
        prefix: take this one, instead of those that consist of :data:`WRAPPERS`.

    Returns:
        What was found; None where no entry has the name of one of the backbone.
    """
    target = vit.MMSEG if any(".attn.attn." in name for name in own) else SAME
    own = renamed(own, target.to_ours(own))
    best, best_score = None, (0, 0)
    for start in prefixes(weights) if prefix is None else (prefix,):
        inner = {name[len(start) :]: name for name in weights if name.startswith(start)}
        for naming in NAMINGS:
            entries = naming.to_ours(inner)
            score = _score({inner[name]: entry for name, entry in entries.items()}, weights, own)
            if score > best_score:
                best, best_score = (start, naming, entries, inner), score
    if best is None:
        return None
    start, naming, entries, inner = best
    state = renamed({name: weights[whole] for name, whole in inner.items()}, entries)
    taken = {inner[name] for name in entries}
    behind = f"behind {start!r}" if start else "without a prefix"
    method = method_of(start, weights)
    words = f"{method}, {naming.title} {behind}" if method else f"{naming.title} {behind}"
    others = tuple(name.removeprefix(start) for name in weights if name not in taken)
    return Recognised(words, start, renamed(state, target.to_theirs(state)), others)


def prefixes(weights: Mapping[str, Tensor]) -> Iterator[str]:
    """The prefixes of the file that consist of wrappers, those with the earlier words first."""
    found = {""}
    for name in weights:
        parts = name.split(".")[:-1]
        for length, part in enumerate(parts, 1):
            if part not in WRAPPERS:
                break
            found.add(".".join(parts[:length]) + ".")
    order = {word: number for number, word in enumerate(WRAPPERS)}

    def rank(start: str) -> list[int]:
        return sorted(order[word] for word in start.split(".")[:-1]) or [len(order)]

    yield from sorted(found, key=lambda start: (rank(start), start))


def _score(entries: Mapping[str, Entry], weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[int, int]:
    """How many entries agree in name and shape, and how many in name."""
    named = fitting = 0
    for name, entry in entries.items():
        if entry.name in own:
            named += 1
            value, place = weights[name], own[entry.name]
            fitting += value.numel() == place.numel() if entry.change else value.shape == place.shape
    return fitting, named
