"""Inference of the three tasks with LV-Adapter over the same without it.

The model is that of configs/mt_bdd_lv.py (R-50, FPN, three heads) with random weights; the text vectors are constants,
as they are at every inference.
"""

from __future__ import annotations

import argparse

from ._common import print_machine, print_ratio
from ._network import add_network_arguments, build, in_rounds, median_of_ratios, random_batch

ROUTES = ("without", "with LV-Adapter")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_network_arguments(parser)


def main(args: argparse.Namespace) -> dict:
    """Print milliseconds of both."""
    import torch

    print_machine()
    adapted, plain = build(args.device).eval(), build(args.device, adapter={}).eval()
    # The same weights elsewhere, so that the heads have the same work.
    plain.load_state_dict({name: value for name, value in adapted.state_dict().items() if "adapter." not in name})
    batch = random_batch(plain, args.batch_size, tuple(args.size), labelled=False)

    def infer(model: torch.nn.Module) -> None:
        with torch.no_grad():
            model(**batch, mode="predict")

    routes = {ROUTES[0]: lambda: infer(plain), ROUTES[1]: lambda: infer(adapted)}
    found = in_rounds(routes, args.repeats, args.device)
    first, second = (found[name] for name in ROUTES)
    print_ratio("milliseconds of an inference", first, second, ROUTES)
    ratio = median_of_ratios(first, second)
    print(f"median of the ratios {ratio:.3f}, floor 1, aim 1.05")
    return dict(ratio=ratio, floor=1.0, aim=1.05, milliseconds=found)
