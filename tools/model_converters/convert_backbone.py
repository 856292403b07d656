"""Give the backbone of a checkpoint in the names of another library.

::

    python tools/model_converters/convert_backbone.py moco_v2_800ep_pretrain.pth.tar r50.pth --to timm
    python tools/model_converters/convert_backbone.py work_dirs/hvp/iter_100.pth swin.safetensors --to torchvision

Whose names the file has is recognised, as in training. Heads are left out.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.zoo.files import fetch, read_state
from mtadapt.zoo.formats import LIBRARIES, convert

SUFFIXES = (".pth", ".safetensors")


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="a file, the folder of a training, a URL, or package:efficientnet-lite0")
    parser.add_argument("out", type=Path, help="the file to write: .pth or .safetensors")
    parser.add_argument("--to", choices=LIBRARIES, required=True, help="mm: names of mmpretrain, mmdet and mmseg")
    parser.add_argument("--prefix", help="what stands before the backbone's names in the file; found by default")
    parser.add_argument("--sha256", help="of the source, in full or its first digits")
    parser.add_argument("--trust-checkpoint", action="store_true", help="run the code that the source may hold")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert one file."""
    args = parse_args(argv)
    if args.out.suffix not in SUFFIXES:
        raise MTAdaptError(f"{args.out}: the name of the file must end in {' or '.join(SUFFIXES)}")
    file = fetch(args.source, args.sha256)
    try:
        converted = convert(read_state(file.path, args.trust_checkpoint), args.to, args.prefix)
    except MTAdaptError as error:
        raise error if str(file.path) in str(error) else MTAdaptError(f"{file.source}: {error}") from error
    state = {name: value.clone(memory_format=torch.contiguous_format) for name, value in converted.state.items()}
    if args.out.suffix == ".safetensors":
        content = save(state)
    else:
        buffer = io.BytesIO()
        torch.save(state, buffer)
        content = buffer.getvalue()
    write_atomically(args.out, content)
    print(f"{file.source} (SHA-256 {file.sha256[:8]}): {converted.family}, {converted.source}")
    if converted.left_out:
        print(f"left out: {', '.join(converted.left_out[:8])}{', ...' if len(converted.left_out) > 8 else ''}")
    print(f"{args.out}: {len(state)} entries in the names of {args.to}")


if __name__ == "__main__":
    with one_line_errors():
        main()
