"""Language: text encoders, prompts, and the text vectors of all tasks."""

from mtadapt.models.text.language import LanguagePriors
from mtadapt.models.text.open_clip_encoder import OpenCLIPTextEncoder
from mtadapt.models.text.precomputed import PrecomputedTextEmbeddings, write_embeddings
from mtadapt.models.text.prompts import TaskPrompts, parse_prompts
from mtadapt.models.text.renaming import find_renaming_encoder
from mtadapt.models.text.sentence_encoder import SentenceTextEncoder
from mtadapt.models.text.text_encoder import TextEncoder, build_text_encoder

__all__ = [
    "LanguagePriors",
    "OpenCLIPTextEncoder",
    "PrecomputedTextEmbeddings",
    "SentenceTextEncoder",
    "TaskPrompts",
    "TextEncoder",
    "build_text_encoder",
    "find_renaming_encoder",
    "parse_prompts",
    "write_embeddings",
]
