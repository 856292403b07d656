"""The command: ``python -m mtadapt.doctor`` and ``mtadapt doctor``."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from mtadapt.doctor.examination import examine
from mtadapt.doctor.report import as_json, as_table

DESCRIPTION = """Say what is wrong with the installation, the machine or a folder of data, and what mends it.

Ends with status 1 where there is a problem, else 0."""


def parse_args(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; ``doctor`` in front is the subcommand of ``mtadapt``."""
    command = bool(Path(sys.argv[0]).stem == "mtadapt")
    parser = argparse.ArgumentParser(
        prog="mtadapt" if command else "python -m mtadapt.doctor",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    doctor = parser
    if command:
        doctor = parser.add_subparsers(title="commands", required=True).add_parser(
            "doctor",
            help="look at the installation and the data",
            description=DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    doctor.add_argument(
        "root", type=Path, nargs="?", metavar="DATASET_ROOT", help="folder of BDD100K, COCO, ADE20K or ImageNet"
    )
    doctor.add_argument("--all", action="store_true", help="read every image and mask, not a sample of each folder")
    doctor.add_argument("--json", action="store_true", help="print JSON in place of the table")
    return parser.parse_args(arguments)


def main() -> None:
    """Examine, print, and end with status 1 where there is a problem."""
    args = parse_args(sys.argv[1:])
    print("looking at packages, imports, devices and disks (some seconds) ...", file=sys.stderr)
    findings = examine(args.root, args.all)
    if args.json:
        print(as_json(findings))
    else:
        terminal = sys.stdout.isatty()
        width = shutil.get_terminal_size((120, 24)).columns if terminal else 120
        print(as_table(findings, width, colour=terminal))
    sys.exit(int(any(one.status == "problem" for one in findings)))


if __name__ == "__main__":
    main()
