"""Text towers of open_clip, without their image towers."""

from __future__ import annotations

import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import print_log
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError, first_line
from mtadapt.models.text.text_encoder import TextEncoder, device_of, tensors_sha256
from mtadapt.registry import MODELS

#: The least image tower that open_clip builds; it is thrown away at once.
_SMALL_VISION = dict(layers=1, width=8, head_width=8, image_size=8, patch_size=8)
_SEED = 0
#: Endings of entries that old checkpoints have and that hold no weights.
_NO_WEIGHTS = ("position_ids", "attn_mask")


@MODELS.register_module()
class OpenCLIPTextEncoder(TextEncoder):
    """The text tower of an open_clip model.

    Learnable contexts go into every tower that reads from left to right and takes its vector from the end token: that
    of CLIP and its relatives. The others (SigLIP, CoCa, towers from transformers) encode fixed prompts only.

    Args:
        model: a name of ``open_clip.list_models()``.
        pretrained: a tag of ``open_clip.list_pretrained()``, whose file open_clip fetches once; a local checkpoint in
            open_clip's format; or None for random weights, always the same, which know nothing of language. A tag
            brings the activation that it was trained with; for a file it is that of ``model``, so OpenAI's own weights
            need a model whose name ends in ``-quickgelu``.

    Raises:
        MTAdaptError: when there is no such model or tag; by :meth:`load` when the weights cannot be had, or are those
            of another tower.

    Reference:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021.
    """

    tower: Any

    def __init__(self, model: str = "ViT-B-32", pretrained: str | None = None) -> None:
        super().__init__()
        import open_clip

        if model not in open_clip.list_models():
            near = get_close_matches(model, open_clip.list_models(), n=4)
            hint = f"nearest: {', '.join(near)}" if near else "see open_clip.list_models()"
            raise MTAdaptError(f"OpenCLIPTextEncoder: open_clip has no model={model!r}; {hint}")
        self.model, self.pretrained = model, pretrained
        config = open_clip.get_model_config(model)
        tag = {}
        if pretrained is not None:
            tag = open_clip.get_pretrained_cfg(model, pretrained)
            if not tag and not Path(pretrained).suffix and not Path(pretrained).is_file():
                tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
                raise MTAdaptError(
                    f"OpenCLIPTextEncoder: pretrained={pretrained!r} is neither a tag of {model} (it has: {tags}) "
                    "nor a file"
                )
        self._tag = tag
        self._kept: tuple[tuple, Tensor, Tensor] | None = None
        self._text_config = config["text_cfg"]
        self._quick_gelu = bool((tag or config).get("quick_gelu", False))
        self.embed_dims = config["embed_dim"]
        self.token_dims = self._text_config.get("width", 512) if self._reads_from_left_to_right() else None

    def fingerprint(self) -> str:
        """SHA-256 of the weights and the activation."""
        self.load()
        return tensors_sha256(self.state_dict(), type(self).__name__, f"quick_gelu={self._quick_gelu}")

    def provenance(self) -> dict[str, str]:
        """Kind of encoder, model, tag or name of the file, and fingerprint of the weights."""
        if self.pretrained is None:
            source = "random"
        else:
            source = self.pretrained if self._tag else Path(self.pretrained).name
        return {**super().provenance(), "model": self.model, "pretrained": source}

    def _reads_from_left_to_right(self) -> bool:
        other = ("hf_model_name", "hf_tokenizer_name", "no_causal_mask", "embed_cls")
        return not any(self._text_config.get(key) for key in other) and (
            self._text_config.get("pool_type", "argmax") == "argmax"
        )

    def _load(self) -> None:
        import open_clip

        text_config = dict(self._text_config, hf_model_pretrained=False)
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_SEED)
                model = open_clip.CustomTextCLIP(self.embed_dims, _SMALL_VISION, text_config, self._quick_gelu)
            self._tokenizer = open_clip.get_tokenizer(self.model)
        except (OSError, RuntimeError, ImportError) as error:  # towers and tokenizers that transformers fetches
            raise MTAdaptError(
                f"OpenCLIPTextEncoder: {self.model} needs files or a package that are not there ({first_line(error)})"
            ) from error
        self.tower = model.text
        if self.pretrained is None:
            message = f"OpenCLIPTextEncoder: {self.model} has random weights; set pretrained to a tag or a file"
            print_log(message, logger="current", level=logging.WARNING)
            return
        self._read(self._checkpoint())

    def _checkpoint(self) -> Path:
        """Path of the weights, fetched if the setting is a tag."""
        assert self.pretrained is not None
        if not self._tag:
            path = Path(self.pretrained)
            if not path.is_file():
                raise MTAdaptError(f"OpenCLIPTextEncoder: pretrained={self.pretrained!r} is no file")
            return path
        import open_clip

        try:
            return Path(open_clip.download_pretrained(self._tag))
        except Exception as error:  # whatever the network and its clients raise
            raise MTAdaptError(
                f"OpenCLIPTextEncoder: the weights of {self.model}, pretrained={self.pretrained!r}, cannot be fetched "
                f"({first_line(error)}); set pretrained to a local file, or text_encoder to PrecomputedTextEmbeddings"
            ) from error

    def _read(self, path: Path) -> None:
        """Fill the tower from a checkpoint of the whole model; every entry must be there."""
        from open_clip.factory import load_state_dict

        try:
            weights = load_state_dict(str(path), weights_only=True)
            of_text = {key.removeprefix("text."): value for key, value in weights.items() if key.startswith("text.")}
        except Exception as error:  # whatever the bytes of the file make of torch's safe unpickler
            raise MTAdaptError(
                f"OpenCLIPTextEncoder: {path} is no checkpoint of plain tensors ({first_line(error)}); save the "
                "model's state_dict() and use that"
            ) from error
        own = self.tower.state_dict()
        roots = {key.split(".")[0] for key in own}
        given = of_text or {key: value for key, value in weights.items() if key.split(".")[0] in roots}
        given = {key: value for key, value in given.items() if not key.endswith(_NO_WEIGHTS)}
        sizes = {key: (_size(given.get(key)), _size(own.get(key))) for key in [*own, *given]}
        wrong = [key for key, (theirs, ours) in sizes.items() if theirs != ours]
        if wrong:
            theirs, ours = sizes[wrong[0]]
            raise MTAdaptError(
                f"OpenCLIPTextEncoder: {path} is a checkpoint of another text tower than model={self.model!r}: "
                f"{len(wrong)} entries do not match, first {wrong[0]!r} (in the file {theirs}, in the tower {ours}); "
                "set model to the file's"
            )
        self.tower.load_state_dict(given)
        print_log(f"OpenCLIPTextEncoder: loaded all {len(own)} entries from {path.name}", logger="current")

    def _encode(self, texts: list[str]) -> Tensor:
        output = self.tower(self._tokenizer(texts).to(device_of(self.tower)))
        return output[0] if isinstance(output, tuple) else output

    def _encode_with_contexts(self, contexts: Tensor, names: list[str]) -> Tensor:
        tower, length = self.tower, contexts.shape[1]
        ids, ends = self._tokens(names)
        used = ids.shape[1]
        if used + length > tower.context_length:
            raise MTAdaptError(
                f"contexts of length {length} and a text of {used} tokens are longer than the {tower.context_length} "
                f"tokens of {self.model}: shorten them"
            )
        words = tower.token_embedding(ids)
        sequence = torch.cat([words[:, :1], contexts, words[:, 1:]], 1) + tower.positional_embedding[: used + length]
        mask = tower.attn_mask[: used + length, : used + length]
        hidden = tower.ln_final(tower.transformer(sequence, attn_mask=mask))
        hidden = hidden[torch.arange(len(names), device=hidden.device), ends + length]
        if isinstance(tower.text_projection, nn.Linear):
            return tower.text_projection(hidden)
        return hidden if tower.text_projection is None else hidden @ tower.text_projection

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token numbers up to the last end token, and the place of each end token.

        Tokens see those before them alone, so what is behind the last end token need not be computed. The same texts
        come in every training step: they are kept.
        """
        key = (tuple(texts), device_of(self.tower))
        if self._kept is None or self._kept[0] != key:
            ids = self._tokenizer(texts)
            ends = ids.argmax(1)  # the end token has the highest number
            ids = ids[:, : int(ends.max()) + 1]
            self._kept = (key, ids.to(key[1]), ends.to(key[1]))
        return self._kept[1:]

    def _context_vectors(self, text: str) -> Tensor:
        ids = self._tokenizer([text])[0].to(device_of(self.tower))
        return self.tower.token_embedding(ids[1 : ids.argmax()])


def _size(value: Tensor | None) -> str:
    return "missing" if value is None else "x".join(map(str, value.shape))
