"""Which text encoder can encode names that a model was not trained with."""

from __future__ import annotations

import torch

from mtadapt.errors import MTAdaptError
from mtadapt.models.text.language import LanguagePriors
from mtadapt.models.text.precomputed import PrecomputedTextEmbeddings
from mtadapt.models.text.sentence_encoder import SentenceTextEncoder
from mtadapt.models.text.text_encoder import TextEncoder

#: Largest difference between values of unit vectors that a half-precision file or another machine makes.
_TOLERANCE = 2e-3


@torch.no_grad()
def find_renaming_encoder(priors: LanguagePriors) -> TextEncoder:
    """Return an encoder of any text whose vectors of the trained prompts are those that the model holds.

    That is the text encoder of the model. A table of texts knows no others; the sentence encoder stands in for it where
    the table's vectors are its own, as those of the packaged file are.

    Raises:
        MTAdaptError: telling why there is none: the encoder cannot be loaded, or its vectors are not the model's.
    """
    own = priors.text_encoder
    table = isinstance(own, PrecomputedTextEmbeddings)
    encoder = SentenceTextEncoder() if table else own
    which = "the sentence encoder" if table else type(own).__name__
    encoder.load()
    held = priors()
    for task, prompts in priors.prompts.items():
        if held[task].shape[1] != encoder.embed_dims:
            difference = float("inf")
        else:
            difference = (prompts(encoder).cpu() - held[task].cpu()).abs().max().item()
        if difference > _TOLERANCE:
            raise MTAdaptError(
                f"the text vectors of the model are not those of {which}, which would have to encode other names; "
                "configure the text encoder that wrote them"
            )
    return encoder
