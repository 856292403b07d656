"""The network that the benchmarks of models share: the R-50 model of the BDD100K configs, on random images."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[3] / "configs/mt_bdd_lv.py"


def add_network_arguments(parser: argparse.ArgumentParser, size: tuple[int, int] = (720, 1280)) -> None:
    """Add the options of every benchmark of a model."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--size", type=int, nargs=2, default=size, help="height and width (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=1, help="images (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (default: %(default)s)")


def build(
    device: str, adapter: dict | None = None, text_encoder: dict | None = None, contexts: dict | None = None
) -> Any:
    """The model of configs/mt_bdd_lv.py with random weights of a fixed seed.

    Args:
        device: where it is put.
        adapter: ``{}`` leaves the adapter out, None keeps it.
        text_encoder: of the adapter, in the place of the config's; by default the vectors of the package.
        contexts: of the adapter, in the place of the config's.
    """
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mtadapt.registry import MODELS

    if device == "cpu":
        # One thread, so that the seconds of the processor compare on a busy machine.
        torch.set_num_threads(1)
    init_default_scope("mtadapt")
    torch.manual_seed(0)
    config = Config.fromfile(CONFIG).model
    config.backbone.init_cfg = None
    if adapter == {}:
        config.adapter = None
    else:
        config.adapter.text_encoder = text_encoder or dict(type="PrecomputedTextEmbeddings")
        config.adapter.contexts = contexts
    model = MODELS.build(config)
    model.init_weights()
    return model.to(device)


def random_batch(model: Any, batch_size: int, size: tuple[int, int], labelled: bool) -> dict:
    """Random images, with 20 boxes and two maps each where they are ``labelled``, after the data preprocessor."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData, PixelData
    from mmseg.structures import SegDataSample

    from mtadapt.structures import MultiTaskDataSample

    generator = torch.Generator().manual_seed(0)
    height, width = size
    images, samples = [], []
    for number in range(batch_size):
        images.append(torch.randint(0, 255, (3, height, width), generator=generator, dtype=torch.uint8))
        meta = dict(img_id=number, img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
        sample = MultiTaskDataSample(metainfo={**meta, "labelled_tasks": tuple(model.tasks) if labelled else ()})
        if labelled:
            corner = torch.rand(20, 2, generator=generator) * torch.tensor([width / 2, height / 2])
            boxes = torch.cat([corner, corner + 16 + torch.rand(20, 2, generator=generator) * height / 3], 1)
            truth = InstanceData(bboxes=boxes, labels=torch.randint(0, 10, (20,), generator=generator))
            none = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.int64))
            sample.set_task("det", DetDataSample(gt_instances=truth, ignored_instances=none))
            for task, classes in (("sem_seg", 19), ("drivable", 3)):
                seg_map = torch.randint(0, classes, (1, height, width), generator=generator, dtype=torch.uint8)
                sample.set_task(task, SegDataSample(gt_sem_seg=PixelData(data=seg_map)))
        samples.append(sample)
    return model.data_preprocessor(dict(inputs=images, data_samples=samples), labelled)


def in_rounds(routes: dict[str, Callable[[], Any]], repeats: int, device: str) -> dict[str, list[float]]:
    """Milliseconds of every route, taken in turns after a round that does not count.

    They are those of the processor on a CPU, which other programs do not change, and of the clock on a GPU.
    """
    import torch

    clock = time.process_time if device == "cpu" else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in routes}
    for number in range(repeats + 1):
        for name, route in routes.items():
            if device == "cuda":
                torch.cuda.synchronize()
            start = clock()
            route()
            if device == "cuda":
                torch.cuda.synchronize()
            if number:
                found[name].append((clock() - start) * 1000)
    return found


def median_of_ratios(first: list[float], second: list[float]) -> float:
    """Median over the rounds of the second over the first, which a machine that slows down moves least."""
    return statistics.median(two / one for one, two in zip(first, second, strict=True))


def trainer(model: Any, batch: dict) -> Callable[[], None]:
    """A training step with SGD over what trains."""
    import torch

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trainable, lr=1e-4, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        total, _ = model.parse_losses(model(**batch, mode="loss"))
        total.backward()
        optimizer.step()

    return step
