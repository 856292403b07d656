"""Which experts each task uses in a checkpoint: a table, a picture and a JSON file.

    python tools/moe/usage.py work_dirs/het_moe_synthetic/iter_300.pth

No model is built. The picture and the numbers are those that ``ExpertUsageHook`` writes during training: a panel a
layer, its rows are tasks, its columns experts. Entropies and mutual information are in nats.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mmcv
from prettytable import PrettyTable

from mtadapt.engine.checkpoints import load_weights
from mtadapt.engine.hooks.expert_usage_hook import write_usage
from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.visualization.expert_usage import LayerUsage, draw_expert_usage, expert_usage


def usage_table(layers: list[LayerUsage]) -> str:
    """Format a row a layer: its mutual information, and and the entropy of each task."""
    tasks = list(dict.fromkeys(task for layer in layers for task in layer.tasks))
    table = PrettyTable(["layer", "experts", "I(task; expert)", *(f"{task} entropy" for task in tasks)])
    table.align = "r"
    table.align["layer"] = "l"
    for layer in layers:
        entropies = [layer.entropies.get(task) for task in tasks]
        cells = ["-" if value is None else f"{value:.3f}" for value in entropies]
        table.add_row([layer.name, sum(layer.banks), f"{layer.mutual_information:#.2g}", *cells])
    return table.get_string()


def main() -> None:
    """Print the table and write the files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="checkpoint of a model with experts")
    parser.add_argument("--out", type=Path, help="folder of the files; expert_usage beside the checkpoint by default")
    parser.add_argument("--probability", action="store_true", help="draw mean probabilities, not shares of the picks")
    args = parser.parse_args()
    layers = expert_usage(load_weights(args.checkpoint))
    if not layers:
        raise MTAdaptError(f"{args.checkpoint}: no layer with experts; give a checkpoint of a model with mlp_experts")
    file = (args.out or args.checkpoint.parent / "expert_usage") / f"{args.checkpoint.stem}.png"
    of = "probability" if args.probability else "load"
    mmcv.imwrite(draw_expert_usage(layers, f"Use of the experts, {file.stem}", of)[..., ::-1], str(file))
    write_usage(layers, file.with_suffix(".json"))
    print(usage_table(layers))
    print(f"picture: {file}")


if __name__ == "__main__":
    with one_line_errors():
        main()
