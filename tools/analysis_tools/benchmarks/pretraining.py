"""A pre-training step of all three branches, over the sum of the steps of each branch alone.

The model and the optimizer are those of a config, with random weights, images and labels. A step is the whole
``train_step``: preprocessor, forward, update of the momentum encoder, queue, backward, clipping and optimizer. Alone, a
branch has its own model, optimizer and views. The floor is the sum without what the branches share: one pass
of the unmasked view through the backbone, forward and backward, and two updates of the backbone.
"""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ._common import print_machine, print_ratio
from ._network import in_rounds, median_of_ratios

CONFIG = Path(__file__).parents[3] / "configs/hvp_swin-b_8xb128-192px.py"
BRANCHES = ("multi_label", "masked_image", "contrastive")
AIM = 1.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--config", type=Path, default=CONFIG, help="of a pre-training (default: Swin-B at 192 px)")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--amp", action="store_true", help="mixed precision in bfloat16")
    parser.add_argument("--batch-size", type=int, default=4, help="images (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (default: %(default)s)")


def main(args: argparse.Namespace) -> dict:
    """Print milliseconds of all, of the sum and of the floor."""
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mtadapt.errors import MTAdaptError

    if args.amp and args.device == "cpu":
        raise MTAdaptError("--amp needs --device cuda")
    if args.device == "cpu":
        # One thread, so that the seconds of the processor compare on a busy machine.
        torch.set_num_threads(1)
    init_default_scope("mtadapt")
    print_machine()
    config = Config.fromfile(args.config)
    model, step = _step(config, args, BRANCHES)
    passes = _count_passes(model, step)
    alone = {branch: _step(config, args, (branch,)) for branch in BRANCHES}
    for branch, (own, own_step) in alone.items():
        _print_passes(branch, _count_passes(own, own_step))
    _print_passes("all", passes)
    routes = {
        "all": step,
        **{branch: own_step for branch, (_, own_step) in alone.items()},
        **_shared(config, args, alone["multi_label"][0]),
    }
    found = in_rounds(routes, args.repeats, args.device)
    parts = [sum(round_) for round_ in zip(*(found[branch] for branch in BRANCHES), strict=True)]
    spared = [one + 2 * update for one, update in zip(found["backbone"], found["update"], strict=True)]
    floor = [total - each for total, each in zip(parts, spared, strict=True)]
    for branch in BRANCHES:
        print_ratio("milliseconds of a step", found["all"], found[branch], ("all", branch))
    print_ratio("milliseconds of a step", parts, floor, ("sum of the branches alone", "floor"))
    print_ratio("milliseconds of a step", parts, found["all"], ("sum of the branches alone", "all"))
    ratio = median_of_ratios(parts, found["all"])
    print(f"median of the rounds' ratios {ratio:.3f}, aim at most {AIM}")
    return dict(ratio=ratio, floor=median_of_ratios(parts, floor), aim=AIM, passes=passes, milliseconds=found)


def _step(config: Any, args: argparse.Namespace, branches: tuple[str, ...]) -> tuple[Any, Callable[[], Any]]:
    """A model with some of the branches, and its training step."""
    import torch

    from mtadapt.registry import MODELS

    torch.manual_seed(0)
    settings = {name: value for name, value in config.model.items() if name not in BRANCHES}
    weights = dict(zip(("mlc", "mim", "con"), BRANCHES, strict=True))
    given = settings.pop("loss_weights", None) or {}
    settings["loss_weights"] = {name: value for name, value in given.items() if weights[name] in branches}
    model = MODELS.build({**settings, **{name: config.model[name] for name in branches}})
    with _quiet():
        model.init_weights()
    model.to(args.device).train()
    optimizer = _optimizer(config, args, model)
    batch = _batch(config, args, branches)
    return model, lambda: model.train_step(batch, optimizer)


def _optimizer(config: Any, args: argparse.Namespace, model: Any) -> Any:
    """The config's optimizer for the parameters of a model."""
    from mmengine.optim import build_optim_wrapper

    settings = config.optim_wrapper.to_dict()
    if args.amp:
        settings.update(type="AmpOptimWrapper", dtype="bfloat16")
    with _quiet():
        return build_optim_wrapper(model, settings)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MMEngine from logging lines for every parameter."""
    from mmengine.logging import MMLogger

    logger: Any = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _batch(config: Any, args: argparse.Namespace, branches: tuple[str, ...]) -> dict:
    """Random images with what the branches need: labels, masks, a second view."""
    import numpy as np
    import torch
    from mmpretrain.structures import DataSample

    from mtadapt.datasets.transforms import MaskPatches
    from mtadapt.structures import MultiTaskDataSample

    generator = torch.Generator().manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    size = config.model.backbone.img_size
    labels = sum(map(len, config.model.multi_label.labels.values()))
    masking, blank = MaskPatches(input_size=size), np.zeros((size, size, 3), np.uint8)
    views = 2 if "contrastive" in branches else 1
    images, samples = [], []
    for _ in range(args.batch_size):
        image = torch.randint(0, 256, (views, 3, size, size), generator=generator, dtype=torch.uint8)
        images.append(image.to(args.device))
        sample = MultiTaskDataSample()
        truth = torch.randint(-1, 2, (labels,), generator=generator).float()
        sample.set_task("mlc", DataSample().set_gt_score(truth))
        sample.set_field(torch.from_numpy(masking.transform(dict(img=blank))["mask"]), "mask", dtype=torch.Tensor)
        samples.append(sample.to(args.device))
    return dict(inputs=images, data_samples=samples)


def _shared(config: Any, args: argparse.Namespace, model: Any) -> dict[str, Callable[[], Any]]:
    """What the branches share: a pass of the unmasked view through the backbone, and an update of the backbone."""
    images = model.data_preprocessor(_batch(config, args, ("multi_label",)), True)["inputs"][:, 0]
    optimizer = _optimizer(config, args, model.backbone)

    def forward_and_backward() -> None:
        with optimizer.optim_context(model.backbone):
            last = model.backbone(images)[-1]
        optimizer.backward(last.float().mean())

    def update() -> None:
        # Of the gradients that the pass before has left.
        optimizer.step()
        optimizer.zero_grad()

    return dict(backbone=forward_and_backward, update=update)


def _count_passes(model: Any, step: Callable[[], Any]) -> dict[str, int]:
    """How often a step passes the backbone unmasked and masked, and the momentum encoder."""
    counts: Counter[str] = Counter()
    masked, contrastive = model.masked_image, model.contrastive

    def count(*_: Any) -> None:
        counts["unmasked" if masked is None or masked.masking.mask is None else "masked"] += 1

    handles = [model.backbone.register_forward_hook(count)]
    if contrastive is not None:
        encoder = contrastive.key_encoder.backbone
        handles.append(encoder.register_forward_hook(lambda *_: counts.update(momentum=1)))
    step()
    for handle in handles:
        handle.remove()
    return {name: counts[name] for name in ("unmasked", "masked", "momentum")}


def _print_passes(name: str, passes: dict[str, int]) -> None:
    print(
        f"backbone passes in a step, {name}: {passes['unmasked']} unmasked, {passes['masked']} masked, "
        f"{passes['momentum']} of the momentum encoder",
        flush=True,
    )
