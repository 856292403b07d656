"""Language: text encoders, prompts, and the text vectors of all tasks."""

from mtadapt.models.text.language import LanguagePriors
from mtadapt.models.text.precomputed import PrecomputedTextEmbeddings, write_embeddings
from mtadapt.models.text.prompts import TaskPrompts, parse_prompts
from mtadapt.models.text.sentence_encoder import SentenceTextEncoder
from mtadapt.models.text.text_encoder import TextEncoder

__all__ = [
    "LanguagePriors",
    "PrecomputedTextEmbeddings",
    "SentenceTextEncoder",
    "TaskPrompts",
    "TextEncoder",
    "parse_prompts",
    "write_embeddings",
]
