"""Prompts of a task: its class names as the texts that a text encoder turns into vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.text.text_encoder import TextEncoder
from mtadapt.registry import MODELS

_SETTINGS = ("classes", "templates", "synonyms", "contexts")
_CONTEXT_SETTINGS = ("length", "per_class", "init")
#: Standard deviation of new context vectors, as in CoOp.
_CONTEXT_STD = 0.02


@MODELS.register_module()
class TaskPrompts(BaseModule):
    """Class names, synonyms, templates and learnable contexts of one task.

    The vector of a class is the mean of the unit vectors of all its texts, at unit length again. Its texts are the name
    and the synonyms in each of the templates. Learnable contexts stand, as if they were words, before every text.

    Args:
        task: name of the task, for messages.
        classes: K class names; they are what the text says, so write them as words.
        encoder: where the vectors come from. It is asked for its width and is not kept: :meth:`forward` gets it.
        templates: texts in which ``{}`` is replaced by the name.
        synonyms: further names of some of the classes.
        contexts: None for fixed prompts, or ``dict(length=8, per_class=False, init=None)``: the number of context
            vectors; whether every class has its own; and a phrase of so many tokens whose embeddings they begin with.
            Without a phrase they begin as noise of deviation 0.02.

    Raises:
        MTAdaptError: naming the task and the setting that is wrong.

    Reference:
        Zhou et al., Learning to Prompt for Vision-Language Models (CoOp), IJCV 2022. Ours: the mean over synonyms.
    """

    _class_index: Tensor

    def __init__(
        self,
        task: str,
        classes: Sequence[str],
        encoder: TextEncoder,
        templates: Sequence[str] = ("{}",),
        synonyms: Mapping[str, Sequence[str]] | None = None,
        contexts: Mapping | None = None,
    ) -> None:
        super().__init__()
        self.task = task
        self.classes = check_names(f"prompts of task {task!r}: classes", classes)
        self.templates = check_names(f"prompts of task {task!r}: templates", templates)
        without = [template for template in self.templates if "{}" not in template]
        if without:
            raise MTAdaptError(f"prompts of task {task!r}: template {without[0]!r} has no {{}} for the class name")
        self.synonyms = self._check_synonyms(synonyms or {})
        settings = None if contexts is None else self._check_contexts(contexts, encoder)
        names = [(number, name) for number, one in enumerate(self.classes) for name in self.names_of(one)]
        self.texts = tuple(template.replace("{}", name) for _, name in names for template in self.templates)
        #: The class of each text.
        self.class_of_text = tuple(number for number, _ in names for _ in self.templates)
        self.register_buffer("_class_index", torch.tensor(self.class_of_text), persistent=False)
        self.learnable = settings is not None
        if settings is not None:
            assert encoder.token_dims is not None
            self._context_init = settings["init"]
            own = (len(self.classes),) if settings["per_class"] else ()
            noise = torch.randn(*own, settings["length"], encoder.token_dims)
            self.contexts = nn.Parameter(noise * _CONTEXT_STD)

    def names_of(self, name: str) -> list[str]:
        """The class name and its synonyms, each once."""
        return list(dict.fromkeys([name, *self.synonyms.get(name, ())]))

    @property
    def trains(self) -> bool:
        """Whether the contexts are there and not frozen."""
        return self.learnable and self.contexts.requires_grad

    def fingerprint(self) -> str:
        """SHA-256 of the texts, their classes and the shape of the contexts."""
        shape = list(self.contexts.shape) if self.learnable else None
        return hashlib.sha256(json.dumps([self.texts, self.class_of_text, shape]).encode()).hexdigest()

    @torch.no_grad()
    def init_contexts(self, encoder: TextEncoder) -> None:
        """Begin the contexts with the token embeddings of the phrase ``init``, where one is set.

        Raises:
            MTAdaptError: when the phrase has another number of tokens than there are contexts.
        """
        if not self.learnable or self._context_init is None:
            return
        vectors = encoder.context_vectors(self._context_init)
        if len(vectors) != self.contexts.shape[-2]:
            raise MTAdaptError(
                f"prompts of task {self.task!r}: contexts: init={self._context_init!r} has {len(vectors)} tokens, "
                f"length is {self.contexts.shape[-2]}; set length={len(vectors)}"
            )
        self.contexts.copy_(vectors.to(self.contexts))

    def text_contexts(self) -> Tensor:
        """The context vectors of each text, ``(number of texts, L, W)``."""
        if self.contexts.dim() == 2:
            return self.contexts.expand(len(self.texts), -1, -1)
        return self.contexts[self._class_index.to(self.contexts.device)]

    def pool(self, vectors: Tensor) -> Tensor:
        """Mean over the texts of each class, at unit length.

        Args:
            vectors: ``(number of texts, D)`` of unit length, in the order of ``texts``.

        Returns:
            ``(K, D)``.
        """
        if len(self.texts) == len(self.classes):
            return vectors
        index = self._class_index.to(vectors.device)
        sums = vectors.new_zeros(len(self.classes), vectors.shape[1]).index_add(0, index, vectors)
        return F.normalize(sums, dim=-1)

    def forward(self, encoder: TextEncoder) -> Tensor:
        """Vectors ``(K, D)`` of the classes, of unit length."""
        if self.learnable:
            return self.pool(encoder.encode_with_contexts(self.text_contexts(), self.texts))
        return self.pool(encoder.encode(self.texts))

    @torch.no_grad()
    def vectors_of(self, names: Mapping[int, str], encoder: TextEncoder) -> Tensor:
        """Vectors of other names in the places of some classes: in the same templates, behind the same contexts.

        Args:
            names: number of a class to the name in its place.
            encoder: where the vectors come from.

        Returns:
            ``(len(names), D)`` of unit length, in the order of ``names``.
        """
        texts = [template.replace("{}", name) for name in names.values() for template in self.templates]
        if self.learnable:
            contexts = self.contexts.expand(len(self.classes), *self.contexts.shape[-2:])[list(names)]
            vectors = encoder.encode_with_contexts(contexts.repeat_interleave(len(self.templates), 0), texts)
        else:
            vectors = encoder.encode(texts)
        if len(self.templates) == 1:
            return vectors
        return F.normalize(vectors.view(len(names), len(self.templates), -1).sum(1), dim=-1)

    def _check_synonyms(self, synonyms: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
        where = f"prompts of task {self.task!r}: synonyms"
        if not isinstance(synonyms, Mapping):
            raise MTAdaptError(f"{where}={synonyms!r} is no table of class name: [further names]")
        for name in synonyms:
            if name not in self.classes:
                raise MTAdaptError(f"{where} name the unknown class {name!r}; known: {', '.join(self.classes)}")
        return {name: check_names(f"{where} of {name!r}", others) for name, others in synonyms.items()}

    def _check_contexts(self, contexts: Mapping, encoder: TextEncoder) -> dict:
        where = f"prompts of task {self.task!r}: contexts"
        if not isinstance(contexts, Mapping):
            raise MTAdaptError(f"{where}={contexts!r} is no dict; write dict(length=8), or None for fixed prompts")
        unknown = [key for key in contexts if key not in _CONTEXT_SETTINGS]
        if unknown:
            raise MTAdaptError(f"{where} has the unknown setting {unknown[0]!r}; known: {', '.join(_CONTEXT_SETTINGS)}")
        if encoder.token_dims is None:
            raise MTAdaptError(
                f"{where} need a text encoder that takes them, {type(encoder).__name__} does not: use an "
                "OpenCLIPTextEncoder of a CLIP model or a SentenceTextEncoder, or contexts=None"
            )
        settings = dict(length=8, per_class=False, init=None) | dict(contexts)
        if type(settings["length"]) is not int or settings["length"] < 1:
            raise MTAdaptError(f"{where}: length={settings['length']!r}, write a number of vectors of at least 1")
        return settings


def parse_prompts(prompts: Mapping[str, Sequence[str] | Mapping]) -> dict[str, dict]:
    """Turn a user's table of prompts into the arguments of :class:`TaskPrompts`.

    Args:
        prompts: task to class names, or task to ``dict(classes=[...])`` with ``templates``, ``synonyms`` and
            ``contexts`` where they are wanted.

    Returns:
        ``{task: dict(classes=..., ...)}``.

    Raises:
        MTAdaptError: naming the task and the setting that is wrong.
    """
    if not isinstance(prompts, Mapping) or not prompts:
        raise MTAdaptError(f"prompts={prompts!r}: write a table of task: [class names]")
    parsed = {}
    # In the order of the alphabet, as in a config that MMEngine has dumped: gates have a row for each task.
    for task, entry in sorted(prompts.items(), key=lambda item: str(item[0])):
        if not isinstance(task, str) or not task.isidentifier():
            raise MTAdaptError(f"prompts: task {task!r} is no name; use letters, digits and underscores")
        settings = dict(entry) if isinstance(entry, Mapping) else dict(classes=entry)
        unknown = [key for key in settings if key not in _SETTINGS]
        if unknown:
            known = ", ".join(_SETTINGS)
            raise MTAdaptError(f"prompts of task {task!r}: unknown setting {unknown[0]!r}; known: {known}")
        if "classes" not in settings:
            raise MTAdaptError(f"prompts of task {task!r}: classes are missing, write classes=[names]")
        parsed[task] = settings
    return parsed


def check_names(where: str, names: Sequence[str]) -> tuple[str, ...]:
    """Check a list of different, non-empty texts."""
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise MTAdaptError(f"{where}={names!r}: write a list of texts")
    for name in names:
        if not isinstance(name, str) or not name.strip():
            raise MTAdaptError(f"{where}: {name!r} is no text")
        if list(names).count(name) > 1:
            raise MTAdaptError(f"{where}: {name!r} is there twice")
    return tuple(names)
