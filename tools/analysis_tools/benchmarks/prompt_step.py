"""A training step with learnable contexts in the text tower over one with constant text vectors.

The model is that of configs/mt_bdd_lv.py with random weights, in both cases with the text tower of CLIP ViT-B/32; one
pass of the tower a step holds the classes of all tasks.
"""

from __future__ import annotations

import argparse

from ._common import print_machine, print_ratio
from ._network import add_network_arguments, build, in_rounds, median_of_ratios, random_batch, trainer

ENCODER = dict(type="OpenCLIPTextEncoder", model="ViT-B-32", pretrained=None)
ROUTES = ("constant", "learnable")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_network_arguments(parser)
    parser.add_argument("--length", type=int, default=8, help="context vectors (default: %(default)s)")


def main(args: argparse.Namespace) -> dict:
    """Print milliseconds of both."""
    print_machine()
    contexts = dict(constant=None, learnable=dict(length=args.length))
    networks = {name: build(args.device, text_encoder=ENCODER, contexts=contexts[name]).train() for name in ROUTES}
    batch = random_batch(networks["constant"], args.batch_size, tuple(args.size), labelled=True)
    routes = {name: trainer(model, batch) for name, model in networks.items()}
    found = in_rounds(routes, args.repeats, args.device)
    first, second = (found[name] for name in ROUTES)
    print_ratio("milliseconds of a step", first, second, ROUTES)
    ratio = median_of_ratios(first, second)
    print(f"median of the ratios {ratio:.3f}, floor 1, aim 1.15")
    return dict(ratio=ratio, floor=1.0, aim=1.15, milliseconds=found)
