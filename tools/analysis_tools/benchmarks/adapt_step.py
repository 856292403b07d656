"""A training step with a frozen backbone (adapt) over one that trains everything (finetune), and over its floor.

The model is that of configs/mt_bdd_lv.py (R-50, FPN, LV-Adapter, three heads) with random weights. The floor is the
backbone forward without gradients plus a step of all the rest on features that are given.
"""

from __future__ import annotations

import argparse

from ._common import print_machine, print_ratio
from ._network import add_network_arguments, build, in_rounds, median_of_ratios, random_batch, trainer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_network_arguments(parser, size=(360, 640))


def main(args: argparse.Namespace) -> dict:
    """Print milliseconds of the three."""
    import torch

    from mtadapt.engine.freezing import freeze

    class Given(torch.nn.Module):
        """The features that the backbone gave."""

        def __init__(self, features: tuple[torch.Tensor, ...]) -> None:
            super().__init__()
            self.features = features

        def forward(self, _: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return self.features

    print_machine()
    finetuned, adapted, rest = (build(args.device).train() for _ in range(3))
    for parameter in finetuned.backbone.parameters():
        parameter.requires_grad = True
    freeze(adapted, ["backbone"])
    batch = random_batch(adapted, args.batch_size, tuple(args.size), labelled=True)
    # mmdet's ResNet.eval() returns None.
    backbone = rest.backbone
    backbone.eval()
    with torch.no_grad():
        rest.backbone = Given(tuple(backbone(batch["inputs"])))

    def forward_backbone() -> None:
        with torch.no_grad():
            backbone(batch["inputs"])

    routes = dict(
        finetune=trainer(finetuned, batch),
        adapt=trainer(adapted, batch),
        backbone=forward_backbone,
        rest=trainer(rest, batch),
    )
    found = in_rounds(routes, args.repeats, args.device)
    floor = [sum(pair) for pair in zip(found["backbone"], found["rest"], strict=True)]
    print_ratio("milliseconds of a step", found["finetune"], found["adapt"], ("finetune", "adapt"))
    print_ratio("milliseconds of a step", floor, found["adapt"], ("floor", "adapt"))
    over_floor = median_of_ratios(floor, found["adapt"])
    print(f"median of the ratios to the floor {over_floor:.3f}, aim 1.1")
    return dict(
        ratio=median_of_ratios(found["finetune"], found["adapt"]),
        floor=median_of_ratios(found["finetune"], floor),
        over_floor=over_floor,
        aim=1.1,
        milliseconds=found,
    )
