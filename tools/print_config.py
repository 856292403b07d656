"""Print a config as the runner sees it.

python tools/print_config.py configs/mt_bdd_baseline.py --cfg-options train_dataloader.batch_size=4
"""

from __future__ import annotations

import argparse

from mtadapt.engine import CfgOptions, load_config
from mtadapt.errors import one_line_errors


def main() -> None:
    """Print the merged config."""
    parser = argparse.ArgumentParser(description="Print the final config")
    parser.add_argument("config", help="config file")
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions, help="override settings, e.g. a.b=1")
    args = parser.parse_args()
    print(load_config(args.config, args.cfg_options).pretty_text)


if __name__ == "__main__":
    with one_line_errors():
        main()
