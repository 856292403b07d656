"""Report what a model is: parameters, FLOPs and, with --evaluate, metrics.

    python tools/moe/measure.py configs/het_moe_synthetic.py work_dirs/het_moe_synthetic/iter_1500.pth \
        --evaluate --out work_dirs/het_moe_synthetic/report.json

For what the other tools have prepared and tools/train.py has trained: the report is of the same form as theirs, and
tools/moe/table.py puts them side by side. A dense twin can be measured too.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mtadapt.engine.measure import measurement_table
from mtadapt.engine.model_folder import write_report
from mtadapt.engine.surgery import add_measure_arguments, measured, open_network
from mtadapt.errors import one_line_errors


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the model")
    parser.add_argument("checkpoint", type=Path, help="its checkpoint")
    parser.add_argument("--out", type=Path, help="file of the report, *.json")
    parser.add_argument("--name", help="of the model in tables (default: that of the config)")
    add_measure_arguments(parser)
    args = parser.parse_args()
    network = open_network(args.config, args.checkpoint, args.cfg_options, need_experts=False)
    numbers = measured(network._replace(name=args.name or network.name), args)
    print(measurement_table({numbers["name"]: numbers}))
    if args.out:
        write_report(args.out, dict(tool="measure", name=numbers["name"], after=numbers))


if __name__ == "__main__":
    with one_line_errors():
        main()
