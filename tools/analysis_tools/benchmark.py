"""Measure a part of mtadapt against what the stock libraries do for the same work, side by side.

    python tools/analysis_tools/benchmark.py index        load the index of a dataset of BDD100K's size
    python tools/analysis_tools/benchmark.py loading      run the training pipeline on one core
    python tools/analysis_tools/benchmark.py heterogeneous_loading   a mix of three sources, against each alone
    python tools/analysis_tools/benchmark.py evaluation   compute the metrics
    python tools/analysis_tools/benchmark.py lv_adapter   infer with and without LV-Adapter
    python tools/analysis_tools/benchmark.py adapt_step   train with and without a frozen backbone
    python tools/analysis_tools/benchmark.py prompt_step  train with and without learnable contexts
    python tools/analysis_tools/benchmark.py moe          train a layer of experts, against a dense one
    python tools/analysis_tools/benchmark.py pretraining  train three branches together, against each alone
    python tools/analysis_tools/benchmark.py export_latency   infer with PyTorch, and exported with onnxruntime

Every line gives the two medians after a warm-up and their ratio. Every module of the folder ``benchmarks`` is a
subcommand. ``--json FILE`` writes its main ratio and the floor, the best that it could be, where that is known.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
from collections.abc import Sequence
from pathlib import Path

from mtadapt.errors import one_line_errors


def main(argv: Sequence[str] | None = None) -> None:
    """Run one subcommand."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subparsers = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for module_info in pkgutil.iter_modules([str(Path(__file__).with_name("benchmarks"))]):
        if module_info.name.startswith("_"):
            continue
        module = importlib.import_module(f"benchmarks.{module_info.name}")
        summary = (module.__doc__ or "").splitlines()[0]
        subparser = subparsers.add_parser(
            module_info.name,
            help=summary,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(subparser)
        subparser.add_argument("--json", type=Path, help="write name, ratio, floor and settings to this file")
        subparser.set_defaults(run=module.main)
    args = parser.parse_args(argv)
    result = args.run(args)
    if args.json:
        settings = {key: str(value) for key, value in vars(args).items() if key not in ("name", "run", "json")}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(dict(name=args.name, **result, settings=settings), indent=1) + "\n")


if __name__ == "__main__":
    with one_line_errors():
        main()
