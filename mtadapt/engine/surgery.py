"""What the tools of tools/moe have in common: their arguments, the models they read and the folder they write."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from torch import Tensor

from mtadapt.engine.checkpoints import load_weights
from mtadapt.engine.config import CfgOptions, load_config
from mtadapt.engine.measure import build_model, evaluate, measure, measurement_table
from mtadapt.engine.model_folder import fingerprint, write_model, write_report
from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.surgery import Experts, Incoming


class Network(NamedTuple):
    """A model with the config of its run.

    Attributes:
        name: for tables.
        config: of the run.
        state: the state dict.
        checkpoint: the file that it comes from.
    """

    name: str
    config: Config
    state: dict[str, Tensor]
    checkpoint: Path


def surgery_parser(description: str | None) -> argparse.ArgumentParser:
    """The arguments that all tools have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the trained model")
    parser.add_argument("checkpoint", type=Path, help="its checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="new folder for config.py, model.pth and report.json")
    add_measure_arguments(parser)
    return parser


def add_measure_arguments(parser: argparse.ArgumentParser) -> None:
    """Add how a model is measured, and the options of its config."""
    parser.add_argument("--evaluate", action="store_true", help="run the test loop, for the metrics in the report")
    parser.add_argument(
        "--size", type=image_size, default=(224, 224), help="WIDTHxHEIGHT for the FLOPs (default: 224x224)"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, help="override settings of the config, e.g. a.b=1"
    )


def add_task_arguments(parser: argparse.ArgumentParser, required: bool) -> None:
    """Add where a task comes from."""
    parser.add_argument("--task", required=True, help="name of the task")
    parser.add_argument(
        "--from", dest="other", metavar="CONFIG", required=required, help="another config with the task's head and data"
    )
    parser.add_argument("--as", dest="rename", metavar="NAME", help="name of the task in the model (default: the same)")
    parser.add_argument("--start-from", metavar="TASK", help="task of the model whose routers the new ones continue")
    parser.add_argument("--seed", type=int, default=0, help="of new weights")
    parser.add_argument(
        "--train-options",
        nargs="+",
        action=CfgOptions,
        help="override settings of the config that is written, e.g. train_cfg.max_iters=300",
    )


def image_size(text: str) -> tuple[int, int]:
    """Width and height from ``320x192``."""
    width, _, height = text.partition("x")
    if not width.isdigit() or not height.isdigit() or not int(width) or not int(height):
        raise argparse.ArgumentTypeError(f"{text!r}: write WIDTHxHEIGHT, e.g. 320x192")
    return int(width), int(height)


def open_network(path: str, checkpoint: Path, options: dict | None = None, need_experts: bool = True) -> Network:
    """Read a model and compare its checkpoint with its config.

    Args:
        path: of the config.
        checkpoint: its weights.
        options: what is overridden in the config.
        need_experts: whether a model without experts is refused.

    Raises:
        MTAdaptError: for a file that is missing or no checkpoint, a model without experts, or one that does not fit.
    """
    config = load_config(path, options)
    if str((config.get("model") or {}).get("type")).split(".")[-1] != "MultiTaskModel":
        raise MTAdaptError(
            f"{path}: its model is no MultiTaskModel; give a config with model=dict(type='MultiTaskModel')"
        )
    state = load_weights(checkpoint)
    try:
        if need_experts:
            Experts.of(config).check(state)
        build_model(config, state)
    except MTAdaptError as error:
        raise MTAdaptError(f"{path}, {checkpoint}: {error}") from error
    name = Path(path).resolve().parent.name if Path(path).stem == "config" else Path(path).stem
    return Network(name, config, state, checkpoint)


def task_from(args: argparse.Namespace) -> str | Incoming:
    """The task that :func:`add_task_arguments` names.

    Raises:
        MTAdaptError: when the other config does not have it.
    """
    if args.other is None:
        if args.rename:
            raise MTAdaptError(f"--as {args.rename}: only a task of another config gets a new name; add --from")
        return args.task
    other = load_config(args.other)
    tasks = (other.get("model") or {}).get("tasks") or {}
    if args.task not in tasks:
        raise MTAdaptError(f"--task {args.task}: no task of {args.other}; it has {', '.join(tasks) or 'none'}")
    return Incoming(other, args.task, args.rename or args.task)


def finish(
    tool: str, args: argparse.Namespace, before: Network, config: Config, state: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Write the folder, measure both models and print the table.

    Args:
        tool: name of the tool.
        args: its arguments.
        before: the model that it began with.
        config: of the model that it made.
        state: of the model that it made.

    Returns:
        The report.
    """
    try:
        config.merge_from_dict(getattr(args, "train_options", None) or {})
    except (KeyError, TypeError, IndexError, AssertionError, AttributeError) as error:
        raise MTAdaptError(f"--train-options {args.train_options}: {error}") from error
    build_model(config, state)
    try:
        path, weights = write_model(args.out, config, state)
        after = Network(args.out.resolve().name, load_config(str(path)), dict(state), weights)
        models = [measured(network, args) for network in (before, after)]
    except BaseException:
        # The folder was new or empty; a second try finds it so.
        shutil.rmtree(args.out, ignore_errors=True)
        raise
    report = dict(tool=tool, name=after.name, settings=_settings(args), before=models[0], after=models[1])
    write_report(args.out / "report.json", report)
    print(measurement_table({each["name"]: each for each in models}))
    if config.get("stages"):
        parameters = models[1]["parameters"]
        print(f"to train: {parameters['trained']:,} of {parameters['total']:,} parameters")
    print(f"config: {path}\nweights: {weights}\nreport: {args.out / 'report.json'}")
    return report


def measured(network: Network, args: argparse.Namespace) -> dict[str, Any]:
    """What a report tells of a model."""
    numbers = dict(
        name=network.name, weights=fingerprint(network.state), **measure(network.config, network.state, args.size)
    )
    if args.evaluate:
        numbers["metrics"] = evaluate(network.config, network.checkpoint, network.name)
    return numbers


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments, with the names of files instead of their paths."""
    settings = {}
    for key, value in vars(args).items():
        if key in ("out", "evaluate", "size") or value is None:
            continue
        settings[key] = Path(value).name if key in ("config", "checkpoint", "other") else value
    return settings
