"""Inference of all tasks with PyTorch, over the same model exported and run by onnxruntime and by torch.export.

From the bytes of images to boxes and maps of classes on every route, with one thread of the CPU. The model is that of
configs/mt_synthetic_lv.py with random weights, or of a checkpoint.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from ._common import print_machine
from ._network import in_rounds, median_of_ratios

CONFIG = Path(__file__).parents[3] / "configs/mt_synthetic_lv.py"
ROUTES = ("PyTorch", "onnxruntime", "torch.export")
HEADING = "| images | PyTorch ms | onnxruntime ms | ratio | torch.export ms | ratio |\n|---|---|---|---|---|---|"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--config", type=Path, help="of the model (default: configs/mt_synthetic_lv.py)")
    parser.add_argument("--checkpoint", type=Path, help="its weights (default: random ones)")
    parser.add_argument(
        "--sizes", nargs="+", default=["320x192", "1280x720"], help="WIDTHxHEIGHT of the images (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-sizes", type=int, nargs="+", default=[1, 4], help="images a batch (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds that count (default: %(default)s)")


def main(args: argparse.Namespace) -> dict:
    """Print a row for every size and number of images."""
    import torch

    from mtadapt.engine.surgery import image_size
    from mtadapt.export import MultiTaskGraph, onnx_runner, torch_runner, trace, write_onnx, write_torch

    # One thread, so that the seconds of the processor compare on a busy machine.
    torch.set_num_threads(1)
    print_machine()
    sizes = [image_size(text) for text in args.sizes]
    model = _model(args)
    cases: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        graph = MultiTaskGraph(model).eval()
        write_onnx(trace(graph, (320, 192)), graph, Path(folder) / "model.onnx", {})
        write_torch(trace(graph, (320, 192), kind="torch"), Path(folder) / "model.pt2", {})
        exported = [onnx_runner(Path(folder) / "model.onnx", threads=1), torch_runner(Path(folder) / "model.pt2")]
        for width, height in sizes:
            for count in args.batch_sizes:
                cases[f"{count} of {width}x{height}"] = _measure(model, exported, (count, height, width), args.repeats)
    print(table(cases))
    ratios = {name: median_of_ratios(found[ROUTES[0]], found[ROUTES[1]]) for name, found in cases.items()}
    return dict(ratio=next(iter(ratios.values())), floor=None, ratios=ratios, milliseconds=cases)


def _model(args: argparse.Namespace) -> Any:
    import torch
    from mmengine.registry import init_default_scope

    from mtadapt.engine.checkpoints import load_weights
    from mtadapt.engine.config import load_config
    from mtadapt.engine.measure import build_model
    from mtadapt.registry import MODELS

    config = load_config(str(args.config or CONFIG))
    init_default_scope("mtadapt")
    if args.checkpoint:
        return build_model(config, load_weights(args.checkpoint))
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    model.init_weights()
    return model.eval()


def _measure(model: Any, exported: list[Any], shape: tuple[int, int, int], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each route."""
    import numpy as np
    import torch

    images = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)

    def predict() -> None:
        pixels = [torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in images]
        with torch.no_grad():
            data = model.data_preprocessor(dict(inputs=pixels, data_samples=None), False)
            model.predict(data["inputs"], data["data_samples"])

    onnx, program = exported
    routes = {ROUTES[0]: predict, ROUTES[1]: lambda: onnx(images), ROUTES[2]: lambda: program(images)}
    return in_rounds(routes, repeats, "cpu")


def table(cases: dict[str, dict[str, list[float]]]) -> str:
    """Markdown of the medians, and of the medians of the rounds' ratios to PyTorch."""
    rows = [HEADING]
    for name, found in cases.items():
        stock, onnx, program = (found[route] for route in ROUTES)
        rows.append(
            f"| {name} | {statistics.median(stock):.0f} | {statistics.median(onnx):.0f} | "
            f"{median_of_ratios(stock, onnx):.2f} | {statistics.median(program):.0f} | "
            f"{median_of_ratios(stock, program):.2f} |"
        )
    return "\n".join(rows)


def table_of(log: Path) -> str:
    """The table of a file that ``--json`` wrote."""
    return table(json.loads(log.read_text())["milliseconds"])
