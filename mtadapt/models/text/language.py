"""The text vectors of all tasks, from one text encoder that runs only where something in them is trained."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.text.prompts import TaskPrompts, check_names, parse_prompts
from mtadapt.models.text.text_encoder import TextEncoder, build_text_encoder, device_of
from mtadapt.registry import MODELS

#: Buffers of every task: its vectors, and the fingerprint of the texts that they are of.
_VECTORS, _TEXTS = "vectors_", "texts_"
_ENCODER = "text_encoder_fingerprint"


class _Held:
    """Keeps the encoder out of the module's parameters; copies of the module share it."""

    def __init__(self, encoder: TextEncoder) -> None:
        self.encoder = encoder
        self.fingerprint: str | None = None

    def __deepcopy__(self, memo: dict) -> _Held:
        return self

    def load(self) -> None:
        self.encoder.load()
        self.fingerprint = self.fingerprint or self.encoder.fingerprint()


@MODELS.register_module()
class LanguagePriors(BaseModule):
    """Text vectors of all tasks, constant wherever nothing in them is trained.

    The vectors are buffers: a checkpoint holds them, and inference from it needs no text encoder. Fixed prompts are
    encoded once, on the CPU, and the encoder's weights are dropped. With learnable contexts the encoder runs in every
    training step, once for all tasks, and the buffers follow when training ends and whenever the state is saved. The
    frozen encoder is no submodule: it is neither in the state dict nor in ``parameters()``, copies of the module share
    it, and it moves to the device of the contexts when it is used.

    Vectors of a checkpoint with other prompts are computed anew.

    Args:
        prompts: table of the tasks' class names and settings, see :func:`~mtadapt.models.text.parse_prompts`.
        text_encoder: config of a :class:`~mtadapt.models.text.TextEncoder`, or one.

    Raises:
        MTAdaptError: when a prompt is wrong; when a checkpoint's vectors have another length; and when the text encoder
            has to run, or training starts, with vectors of another text encoder.
    """

    text_encoder_fingerprint: Tensor

    def __init__(self, prompts: Mapping, text_encoder: dict | TextEncoder) -> None:
        super().__init__()
        encoder = text_encoder if isinstance(text_encoder, TextEncoder) else build_text_encoder(text_encoder)
        self._held = _Held(encoder)
        self._owns_encoder = encoder is not text_encoder
        self.embed_dims = encoder.embed_dims
        self.prompts = nn.ModuleDict(
            {task: TaskPrompts(task, encoder=encoder, **settings) for task, settings in parse_prompts(prompts).items()}
        )
        self.classes = {task: one.classes for task, one in self._tasks.items()}
        self.learnable = any(one.learnable for one in self._tasks.values())
        for task, one in self._tasks.items():
            self.register_buffer(_VECTORS + task, torch.zeros(len(one.classes), self.embed_dims))
            self.register_buffer(_TEXTS + task, _as_bytes(one.fingerprint()))
        # Fingerprint of the encoder that the vectors are of; zeros as long as there are no vectors.
        self.register_buffer(_ENCODER, torch.zeros(32, dtype=torch.uint8))
        self._filled: set[str] = set()  # tasks whose vectors are there
        self._begun: set[str] = set()  # tasks whose contexts have their initial or loaded value
        self._folded: dict[str, Tensor] = {}  # contexts that the vectors were computed with
        self._stale = False  # contexts may have been trained since
        self._renamed: dict[str, tuple[tuple[str, ...], Tensor]] = {}  # names in use and their vectors, not trained
        self._given: str | None = None  # fingerprint of the encoder of the checkpoint that was loaded

    @property
    def text_encoder(self) -> TextEncoder:
        """The frozen encoder."""
        return self._held.encoder

    @property
    def _tasks(self) -> dict[str, TaskPrompts]:
        return {task: cast(TaskPrompts, one) for task, one in self.prompts.items()}

    def init_weights(self) -> None:
        """Encode the prompts, unless a checkpoint has given the vectors."""
        super().init_weights()
        self._fill_missing()

    def forward(self) -> dict[str, Tensor]:
        """Text vectors ``(K, D)`` of every task, of unit length."""
        self._fill_missing()
        if self.training:
            self._check_encoder()
        trained = [t for t, one in self._tasks.items() if self.training and one.trains]
        vectors = {task: getattr(self, _VECTORS + task) for task in self._tasks}
        if trained:
            self._held.load()
            self._check_encoder()
            self._stale = True
            vectors |= self._encode(trained)
        elif self._stale:
            self._fold()
            self._stale = False
        if not self.training:
            vectors |= {task: renamed.to(vectors[task]) for task, (_, renamed) in self._renamed.items()}
        return vectors

    def names_in_use(self, task: str) -> tuple[str, ...]:
        """The names that stand for the classes of a task at inference."""
        return self._renamed[task][0] if task in self._renamed else self.classes[task]

    @torch.no_grad()
    def set_classes(self, task: str, names: Sequence[str], encoder: TextEncoder | None = None) -> None:
        """Let other names stand for the classes of a task at inference.

        A class that keeps its name keeps its trained vector, to the bit; one with another name loses its synonyms and
        keeps templates and contexts. Nothing of it is trained or saved, and a state that is loaded ends it.

        Args:
            task: the task.
            names: as many different names as the task has classes; those of the prompts take all of it back.
            encoder: what encodes the names in place of the text encoder, for example where that is a table of texts.

        Raises:
            MTAdaptError: for an unknown task, another number of names or an empty one, and when the text encoder
                cannot encode a name or is not the one of the checkpoint.
        """
        if task not in self.classes:
            raise MTAdaptError(f"set_classes: task {task!r} has no prompts; prompts are of {', '.join(self.classes)}")
        names, classes = check_names(f"names of task {task!r}", names), self.classes[task]
        if len(names) != len(classes):
            raise MTAdaptError(f"task {task!r}: {len(names)} names, the head has {len(classes)} classes: write as many")
        changed = {number: name for number, name in enumerate(names) if name != classes[number]}
        if not changed:
            self._renamed.pop(task, None)
            return
        if self.names_in_use(task) == names:
            return
        self._fill_missing()
        if encoder is None:
            self._held.load()
            self._check_encoder()
        vectors = getattr(self, _VECTORS + task).detach().cpu().clone()
        vectors[list(changed)] = self._tasks[task].vectors_of(changed, encoder or self.text_encoder).cpu()
        self._renamed[task] = (names, vectors)

    def train(self, mode: bool = True) -> LanguagePriors:
        """Set the mode; when training ends, the vectors follow the contexts."""
        super().train(mode)
        if not mode:
            self._fold()
            self._stale = False
        return self

    def _fill_missing(self) -> None:
        missing = [task for task in self._tasks if task not in self._filled]
        if not missing:
            return
        self._fill(missing)
        if not self.learnable and self._owns_encoder:
            self.text_encoder.unload()

    @torch.no_grad()
    def _fill(self, tasks: list[str]) -> None:
        """Compute the vectors of these tasks."""
        self._held.load()
        self._check_encoder()
        for task in tasks:
            if task not in self._begun:
                self._tasks[task].init_contexts(self.text_encoder)
        for task, vectors in self._encode(tasks).items():
            getattr(self, _VECTORS + task).copy_(vectors)
            if self._tasks[task].learnable:
                self._folded[task] = self._tasks[task].contexts.detach().cpu().clone()
        self._filled.update(tasks)
        self._begun.update(tasks)
        assert self._held.fingerprint is not None
        self.text_encoder_fingerprint.copy_(_as_bytes(self._held.fingerprint))

    def _fold(self) -> None:
        """Compute the vectors whose contexts have changed."""
        if self.learnable and self.text_encoder.loaded and self.text_encoder_fingerprint.any():
            learnable = {task: one.contexts.detach().cpu() for task, one in self._tasks.items() if one.learnable}
            changed = [t for t, now in learnable.items() if t not in self._folded or not now.equal(self._folded[t])]
            if changed:
                self._begun.update(changed)
                self._fill(changed)

    def _encode(self, tasks: list[str]) -> dict[str, Tensor]:
        """Encode these tasks' prompts, with one run for all whose contexts are of one length."""
        groups = defaultdict(list)
        for task in tasks:
            one = self._tasks[task]
            groups[one.contexts.shape[-2] if one.learnable else 0].append(one)
        found: dict[str, Tensor] = {}
        for length, members in groups.items():
            texts = [text for one in members for text in one.texts]
            if length:
                contexts = torch.cat([one.text_contexts() for one in members])
                if device_of(self.text_encoder) != contexts.device:
                    self.text_encoder.to(contexts.device)
                vectors = self.text_encoder.encode_with_contexts(contexts, texts)
            else:
                vectors = self.text_encoder.encode(texts)
            parts = vectors.split([len(one.texts) for one in members])
            found |= {one.task: one.pool(part) for one, part in zip(members, parts, strict=True)}
        return found

    def _check_encoder(self) -> None:
        """Refuse to go on with a checkpoint of another encoder."""
        own = self._held.fingerprint
        if self._given is not None and own is not None and self._given != own:
            raise MTAdaptError(
                f"the checkpoint's text vectors are of another text encoder (fingerprint {self._given[:12]}) than "
                f"text_encoder={type(self.text_encoder).__name__} (fingerprint {own[:12]}); set text_encoder to the "
                "model and weights that the checkpoint was trained with"
            )

    def _save_to_state_dict(self, destination: dict, prefix: str, keep_vars: bool) -> None:
        self._fold()
        super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *args: Any) -> None:
        for task, one in self._tasks.items():
            self._check_width(state_dict.get(f"{prefix}{_VECTORS}{task}"), self.embed_dims, f"vectors of task {task!r}")
            if one.learnable:
                contexts = state_dict.get(f"{prefix}prompts.{task}.contexts")
                self._check_width(contexts, one.contexts.shape[-1], f"contexts of task {task!r}")
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._renamed.clear()
        given = state_dict.get(prefix + _ENCODER)
        if given is not None:
            self._given = bytes(given.tolist()).hex() if given.any() else None
        for task in self._tasks:
            self._note_loaded(task, state_dict, prefix, usable=given is None or self._given is not None)

    def _note_loaded(self, task: str, state_dict: Mapping[str, Tensor], prefix: str, usable: bool) -> None:
        """Note whether the vectors of a task are those of its prompts now that a state was loaded."""
        one = self._tasks[task]
        vectors = state_dict.get(f"{prefix}{_VECTORS}{task}")
        contexts = state_dict.get(f"{prefix}prompts.{task}.contexts") if one.learnable else None
        if contexts is not None and contexts.shape == one.contexts.shape:
            self._begun.add(task)
            self._folded[task] = contexts.detach().cpu().clone()
        if vectors is None and contexts is None:
            return
        self._filled.discard(task)
        own = _as_bytes(one.fingerprint())
        texts = state_dict.get(f"{prefix}{_TEXTS}{task}", own).cpu()
        getattr(self, _TEXTS + task).copy_(own)
        if not texts.equal(own):
            message = f"The checkpoint has other prompts of task {task!r}: its text vectors are computed anew"
            print_log(message, logger="current", level=logging.WARNING)
            return
        whole = vectors is not None and len(vectors) == len(one.classes) and (contexts is not None or not one.learnable)
        if usable and whole:
            self._filled.add(task)

    def _check_width(self, given: Tensor | None, own: int, what: str) -> None:
        if given is not None and given.shape[-1] != own:
            raise MTAdaptError(
                f"the checkpoint is of another text encoder: its {what} are {given.shape[-1]} long, those of "
                f"text_encoder={type(self.text_encoder).__name__} {own}; set text_encoder to the model that the "
                "checkpoint was trained with"
            )


def _as_bytes(fingerprint: str) -> Tensor:
    return torch.tensor(list(bytes.fromhex(fingerprint)), dtype=torch.uint8)
