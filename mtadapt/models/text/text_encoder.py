"""What every source of text vectors offers: frozen weights that are loaded when they are first needed."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.registry import MODELS

#: Texts that go through a tower at once.
_CHUNK = 256


class TextEncoder(BaseModule):
    """Base of the frozen text encoders.

    Building one is cheap: weights are read by :meth:`load`. No parameter ever asks for a gradient, dropout is always
    off, and automatic mixed precision does not reach inside.

    Attributes:
        embed_dims: length D of a text vector, known without the weights.
        token_dims: width W of a token embedding; None where learnable contexts cannot be put into the sequence.
    """

    embed_dims: int
    token_dims: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.loaded = False

    def load(self) -> None:
        """Read the weights, once; further calls do nothing."""
        if self.loaded:
            return
        self._load()
        self.requires_grad_(False)
        self.eval()
        self.loaded = True

    def unload(self) -> None:
        """Drop the weights; the next use reads them again."""
        for name in list(self._modules):
            delattr(self, name)
        self.loaded = False

    def init_weights(self) -> None:
        """Read the weights; nothing is ever initialised over them."""
        self.load()

    def train(self, mode: bool = True) -> TextEncoder:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> Tensor:
        """Vectors of whole texts.

        Args:
            texts: K texts.

        Returns:
            ``(K, D)`` float32 of unit length.
        """
        self.load()
        with _full_precision():
            chunks = [self._encode(list(texts[at : at + _CHUNK])) for at in range(0, len(texts), _CHUNK)]
        return F.normalize(torch.cat(chunks).float(), dim=-1) if chunks else torch.zeros(0, self.embed_dims)

    def encode_with_contexts(self, contexts: Tensor, names: Sequence[str]) -> Tensor:
        """Vectors of sequences in which the context vectors stand, as if they were words, before the text.

        Args:
            contexts: ``(L, W)`` for all texts or ``(K, L, W)``, one a text; gradients reach them.
            names: K texts.

        Returns:
            ``(K, D)`` float32 of unit length.

        Raises:
            MTAdaptError: when the encoder takes no contexts, or a sequence becomes too long for it.
        """
        self._check_takes_contexts()
        self.load()
        contexts = contexts.expand(len(names), *contexts.shape[-2:])
        with _full_precision():
            return F.normalize(self._encode_with_contexts(contexts.float(), list(names)), dim=-1)

    @torch.no_grad()
    def context_vectors(self, text: str) -> Tensor:
        """Token embeddings ``(L, W)`` of a phrase without start and end, to begin learnable contexts with."""
        self._check_takes_contexts()
        self.load()
        return self._context_vectors(text).clone()

    def fingerprint(self) -> str:
        """SHA-256 that two encoders share if and only if they are of one kind and have the same weights."""
        self.load()
        return tensors_sha256(self.state_dict(), type(self).__name__)

    def provenance(self) -> dict[str, str]:
        """Where the vectors come from: kind of encoder and the fingerprint of its weights."""
        return {"encoder": type(self).__name__, "fingerprint": self.fingerprint()}

    def _check_takes_contexts(self) -> None:
        if self.token_dims is None:
            raise MTAdaptError(
                f"{type(self).__name__} takes no learnable contexts: set contexts=None, or text_encoder to an "
                "OpenCLIPTextEncoder of a CLIP model or a SentenceTextEncoder"
            )

    @abstractmethod
    def _load(self) -> None:
        """Create the modules and fill them."""

    @abstractmethod
    def _encode(self, texts: list[str]) -> Tensor:
        """Vectors ``(K, D)`` of any length."""

    def _encode_with_contexts(self, contexts: Tensor, names: list[str]) -> Tensor:
        """Vectors ``(K, D)`` of any length for contexts ``(K, L, W)``."""
        raise NotImplementedError

    def _context_vectors(self, text: str) -> Tensor:
        raise NotImplementedError


def build_text_encoder(text_encoder: Mapping) -> TextEncoder:
    """Build the encoder; names without a prefix are mtadapt's, whatever the scope of the config.

    Raises:
        MTAdaptError: when the config is none of a text encoder.
    """
    if not isinstance(text_encoder, Mapping) or "type" not in text_encoder:
        raise MTAdaptError(
            f"text_encoder={text_encoder!r}: write dict(type='mtadapt.SentenceTextEncoder'), for example"
        )
    with DefaultScope.overwrite_default_scope("mtadapt"):
        name = text_encoder["type"]
        kind = MODELS.get(name) if isinstance(name, str) else name
        if kind is None:
            known = [name for name, one in MODELS.module_dict.items() if _is_text_encoder(one)]
            raise MTAdaptError(f"text_encoder: unknown type={name!r}; known: {', '.join(sorted(known))}")
        if not _is_text_encoder(kind):
            raise MTAdaptError(f"text_encoder: type={name!r} is no text encoder")
        try:
            return MODELS.build(text_encoder)
        except TypeError as error:
            raise MTAdaptError(f"text_encoder: {error}") from error


def _is_text_encoder(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, TextEncoder)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Switch automatic mixed precision off, wherever the weights are."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


def tensors_sha256(tensors: Mapping[str, Tensor], *notes: str) -> str:
    """SHA-256 over notes and named tensors: names, types, shapes and values."""
    digest = hashlib.sha256("\n".join(notes).encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def device_of(module: nn.Module) -> torch.device:
    """The device of a module's parameters."""
    return next(module.parameters()).device
