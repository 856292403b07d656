"""Write a trained model as one graph, with all its tasks: an ONNX file, or an exported program of PyTorch.

    python tools/export_onnx.py configs/mt_synthetic_lv.py work_dirs/mt_synthetic_lv/finetune/epoch_7.pth \
        --out model.onnx

The graph takes uint8 images ``(N, H, W, 3)`` as OpenCV reads them, of any number and size; docs/export.md has the
outputs. Before the tool ends, it opens the file and compares it with the model's own predictions.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from mtadapt.engine import CfgOptions
from mtadapt.engine.model_folder import fingerprint
from mtadapt.engine.surgery import image_size
from mtadapt.errors import MTAdaptError, one_line_errors

#: Width and height that are traced.
SIZE = (320, 192)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the trained model")
    parser.add_argument("checkpoint", type=Path, help="its checkpoint, or the folder of the run")
    parser.add_argument("--out", type=Path, required=True, help="file to write; .onnx, or .pt2 with --format torch")
    parser.add_argument("--format", choices=["onnx", "torch"], default="onnx", help="default: onnx")
    parser.add_argument("--tasks", nargs="+", help="tasks to export (default: all)")
    parser.add_argument(
        "--postprocess",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="boxes after suppression and maps of classes; without it scores and boxes before, and logits",
    )
    parser.add_argument(
        "--size", type=image_size, help="WIDTHxHEIGHT that is traced (default: 320x192, or what the model needs)"
    )
    parser.add_argument("--fixed-size", action="store_true", help="take images of this size alone")
    parser.add_argument("--opset", type=int, default=18, help="of ONNX (default: 18)")
    parser.add_argument("--verify", nargs="+", type=Path, default=[], metavar="IMAGE", help="images to compare with")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that exists")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, help="override settings of the config, e.g. a.b=1"
    )
    return parser.parse_args()


def main() -> None:
    """Export."""
    args = parse_args()
    check_out(args)
    if args.fixed_size:
        args.size = args.size or SIZE
    images = {path.name: read_image(path, args) for path in args.verify}
    from mtadapt.apis.model_loading import open_model
    from mtadapt.export import MultiTaskGraph, check_opset, describe, trace, warm_up, write_onnx, write_torch

    check_opset(args.opset)
    opened = open_model(args.config, args.checkpoint, "cpu", args.cfg_options)
    model: Any = opened.model
    graph = MultiTaskGraph(model, args.tasks, args.postprocess).eval()
    if args.size is None:
        smallest = warm_up(graph)
        args.size = tuple(max(side, smallest) for side in SIZE)
    fixed = args.size if args.fixed_size else None
    about = describe(graph, opened.dataset_meta, Path(args.config).name, fingerprint(model.state_dict()), fixed)
    program = trace(graph, args.size, args.fixed_size, args.format)
    # Under its name only when it was compared, so that a good file stays until there is a better one.
    unchecked = args.out.with_name(f"{args.out.stem}.unchecked{args.out.suffix}")
    if args.format == "onnx":
        write_onnx(program, graph, unchecked, about, args.opset)
    else:
        write_torch(program, unchecked, about)
    verify(args, unchecked, model, graph, images)
    unchecked.replace(args.out)
    print(f"outputs: {', '.join(graph.outputs)}")
    print(f"{args.format}: {args.out} ({args.out.stat().st_size / 1e6:.1f} MB)")


def check_out(args: argparse.Namespace) -> None:
    """Refuse what cannot be written, before anything is computed."""
    suffix = ".onnx" if args.format == "onnx" else ".pt2"
    if args.out.suffix != suffix:
        raise MTAdaptError(f"--out {args.out}: a file of --format {args.format} ends in {suffix}")
    if args.out.is_dir():
        raise MTAdaptError(f"--out {args.out}: is a folder; name a file")
    if args.out.exists() and not args.overwrite:
        raise MTAdaptError(f"--out {args.out}: exists; name another file, or add --overwrite")


def read_image(path: Path, args: argparse.Namespace) -> np.ndarray:
    """Read an image, in the fixed size if there is one."""
    import cv2

    image = cv2.imread(str(path)) if path.is_file() else None
    if image is None:
        raise MTAdaptError(f"--verify {path}: {'no image that can be read' if path.exists() else 'no such file'}")
    return cv2.resize(image, args.size) if args.fixed_size else image


def verify(args: argparse.Namespace, path: Path, model: Any, graph: Any, images: dict[str, np.ndarray]) -> None:
    """Compare the file with the model on images or noise, and on noise of other sizes where all are taken.

    Raises:
        MTAdaptError: when a difference is above the tolerance.
    """
    from mtadapt.export import TOLERANCE, compare, compare_raw, differences_table, onnx_runner, torch_runner

    run = onnx_runner(path) if args.format == "onnx" else torch_runner(path)
    images = images or noise(*args.size)
    if not args.fixed_size:
        images |= noise(args.size[0] * 5 // 4 + 3, args.size[1] * 5 // 4 + 1)
        images |= noise(args.size[0] * 2 // 3, args.size[1] * 3 // 4)
    found = []
    for name, image in images.items():
        found += (
            compare(model, run, image, name, graph.names) if args.postprocess else compare_raw(graph, run, image, name)
        )
    print(differences_table(found))
    worst = max(found, key=lambda each: each.value)
    if worst.value > TOLERANCE:
        raise MTAdaptError(
            f"{path}: {worst.task} differs from the model by {worst.value:.2g} on {worst.image}, more than "
            f"{TOLERANCE:g}; {'leave the task out with --tasks' if args.fixed_size else 'try --fixed-size'}"
        )


def noise(width: int, height: int) -> dict[str, np.ndarray]:
    """An image of noise, by its name."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return {f"noise {width}x{height}": pixels}


if __name__ == "__main__":
    with one_line_errors():
        main()
