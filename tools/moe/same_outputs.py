"""Compare two models to the bit: features, raw outputs of the heads and predictions on validation images, and weights.

    python tools/moe/same_outputs.py CONFIG_A CHECKPOINT_A CONFIG_B CHECKPOINT_B --tasks cls det

The images are those of the first config's val_dataloader that are labelled for the tasks; all tasks that both models
have by default. Ends with status 1 when anything differs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mtadapt.engine.same_outputs import Comparison, compare_outputs, compare_weights
from mtadapt.engine.surgery import Network, open_network
from mtadapt.errors import MTAdaptError, one_line_errors


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for letter in "ab":
        parser.add_argument(f"config_{letter}", help="config of a model")
        parser.add_argument(f"checkpoint_{letter}", type=Path, help="its checkpoint")
    parser.add_argument("--tasks", nargs="+", help="tasks to compare")
    parser.add_argument("--batches", type=int, help="stop after this many batches of the loader")
    parser.add_argument("--outputs-only", action="store_true", help="leave the weights out, e.g. of a pruned model")
    return parser.parse_args(argv)


def common_tasks(a: Network, b: Network, given: Sequence[str] | None) -> list[str]:
    """The tasks to compare."""
    common = [task for task in a.config.model.tasks if task in b.config.model.tasks]
    unknown = [task for task in given or () if task not in common]
    if unknown or not common:
        raise MTAdaptError(f"--tasks {' '.join(unknown)}: both models need the task; they share {common or 'none'}")
    return list(given or common)


def main() -> None:
    """Compare."""
    args = parse_args()
    a = open_network(args.config_a, args.checkpoint_a)
    b = open_network(args.config_b, args.checkpoint_b)
    tasks = common_tasks(a, b, args.tasks)
    found = Comparison()
    if not args.outputs_only:
        compare_weights(a.config, a.state, b.config, b.state, tasks, found)
    compare_outputs(a.config, a.state, b.config, b.state, tasks, found, args.batches)
    print(found.table())
    for line in found.differences[:10]:
        print(f"different: {line}")
    print("equal to the bit" if not found.differences else f"{len(found.differences)} differences")
    sys.exit(1 if found.differences else 0)


if __name__ == "__main__":
    with one_line_errors():
        main()
