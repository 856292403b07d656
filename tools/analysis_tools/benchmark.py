"""Measure a part of mtadapt against what the stock libraries do for the same work, side by side.

    python tools/analysis_tools/benchmark.py index        load the index of a dataset of BDD100K's size
    python tools/analysis_tools/benchmark.py loading      run the training pipeline on one core
    python tools/analysis_tools/benchmark.py evaluation   compute the metrics

Every line gives the two medians after a warm-up and their ratio. Every module of the folder ``benchmarks`` is a
subcommand.
"""

from __future__ import annotations

import argparse
import importlib
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
        subparser.set_defaults(run=module.main)
    args = parser.parse_args(argv)
    args.run(args)


if __name__ == "__main__":
    with one_line_errors():
        main()
