"""Text vectors that were computed before, from a file: no text encoder is needed where they are used."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.text.text_encoder import TextEncoder
from mtadapt.registry import MODELS

#: Vectors of all-MiniLM-L6-v2 for the classes of BDD100K, their synonyms and some templates.
PACKAGED_FILE = Path(__file__).with_name("minilm_bdd100k.safetensors")
_TOOL = "tools/model_converters/text_embeddings.py"
_ENTRY = "embeddings"


@MODELS.register_module()
class PrecomputedTextEmbeddings(TextEncoder):
    """A table of texts and their vectors.

    Args:
        path: a file of ``tools/model_converters/text_embeddings.py``, or ``package`` for the one that comes with
            mtadapt: all-MiniLM-L6-v2's vectors of BDD100K's classes and their synonyms.

    Raises:
        MTAdaptError: when the file is missing or of another format.
    """

    vectors: Tensor

    def __init__(self, path: str = "package") -> None:
        super().__init__()
        self.path = PACKAGED_FILE if path == "package" else Path(path)
        self.texts, self.embed_dims, self._provenance = _read_header(self.path)
        self._rows = {text: row for row, text in enumerate(self.texts)}

    def provenance(self) -> dict[str, str]:
        """What the file says of the encoder that its vectors come from."""
        return {**super().provenance(), **self._provenance}

    def fingerprint(self) -> str:
        """That of the encoder that wrote the file; of the vectors themselves where the file does not tell."""
        return self._provenance.get("fingerprint") or super().fingerprint()

    def unload(self) -> None:
        """Drop the vectors; the next use reads them again."""
        if self.loaded:
            del self.vectors
        super().unload()

    def _load(self) -> None:
        with safe_open(self.path, framework="pt") as file:
            vectors = file.get_tensor(_ENTRY).float()
        if not vectors.isfinite().all() or not vectors.any(1).all():
            raise MTAdaptError(f"{self.path}: a vector is zero or not finite; write the file anew with {_TOOL}")
        self.register_buffer("vectors", vectors)

    def _encode(self, texts: list[str]) -> Tensor:
        missing = [text for text in texts if text not in self._rows]
        if missing:
            near = get_close_matches(missing[0], self._rows, n=3)
            hint = f", nearest: {', '.join(map(repr, near))}" if near else ""
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise MTAdaptError(
                f"{self.path.name} has no vector of {missing[0]!r}{more}{hint}; write a file with your texts: "
                f"{_TOOL} --texts ... --out FILE, and set path=FILE"
            )
        return self.vectors[torch.tensor([self._rows[text] for text in texts], device=self.vectors.device)]


def write_embeddings(path: str | Path, texts: Sequence[str], vectors: Tensor, provenance: Mapping[str, str]) -> None:
    """Write a file for :class:`PrecomputedTextEmbeddings`.

    Args:
        path: file to write.
        texts: K different texts.
        vectors: their vectors ``(K, D)``.
        provenance: what to note of their origin.
    """
    assert len(set(texts)) == len(texts) == len(vectors)
    metadata = dict(texts=json.dumps(list(texts)), provenance=json.dumps(dict(provenance)))
    save_file({_ENTRY: vectors.detach().float().cpu().contiguous()}, path, metadata)


def _read_header(path: Path) -> tuple[tuple[str, ...], int, dict[str, str]]:
    """Texts, length of a vector and provenance, without reading the vectors."""
    if not path.is_file():
        raise MTAdaptError(f"PrecomputedTextEmbeddings: path={str(path)!r} is no file; write it with {_TOOL}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            texts, provenance = json.loads(metadata["texts"]), json.loads(metadata.get("provenance", "{}"))
            num, dims = file.get_slice(_ENTRY).get_shape()
        if len(texts) != num or len(set(texts)) != num:
            raise ValueError(f"{len(set(texts))} texts and {num} vectors")
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise MTAdaptError(
            f"PrecomputedTextEmbeddings: {path} is no file of text vectors ({error}); write it with {_TOOL}"
        ) from error
    return tuple(texts), dims, provenance
