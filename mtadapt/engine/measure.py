"""What a config and its weights are: parameters, computation, metrics."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from prettytable import PrettyTable, TableStyle
from torch import Tensor, nn

from mtadapt.engine.config import build_runner
from mtadapt.engine.freezing import modules_to_freeze, trainable_without
from mtadapt.engine.hooks.parameter_table_hook import count_flops
from mtadapt.errors import MTAdaptError, first_line
from mtadapt.evaluation.summary import MAIN
from mtadapt.registry import MODELS
from mtadapt.structures import MultiTaskDataSample

#: Name of the pass of one image for all tasks, beside those for one task each.
ALL_TASKS = "all tasks"


def build_model(config: Config, state: Mapping[str, Tensor]) -> nn.Module:
    """Build the model of a config and load its weights, all of them.

    Raises:
        MTAdaptError: when the model cannot be built, or entries are missing, left over or of another shape.
    """
    try:
        with DefaultScope.overwrite_default_scope(config.get("default_scope", "mtadapt")):
            model = MODELS.build(copy.deepcopy(config.model))
    except (KeyError, TypeError) as error:
        raise MTAdaptError(f"the model cannot be built: {first_line(error)}") from error
    own = model.state_dict()
    wrong = [name for name, value in own.items() if name not in state or state[name].shape != value.shape]
    left_over = [name for name in state if name not in own]
    if wrong or left_over:
        first = f"first without a match: {wrong[0]}" if wrong else f"it also has {left_over[0]}"
        raise MTAdaptError(
            f"the checkpoint is of another model: {len(own) - len(wrong)} of the config's {len(own)} entries are in "
            f"it, {first}; give the config that it was trained with"
        )
    model.load_state_dict(dict(state))
    return model.eval()


def measure(config: Config, state: Mapping[str, Tensor], size: tuple[int, int]) -> dict[str, Any]:
    """Count the parameters and the computation of a model.

    Args:
        config: of the run.
        state: its state dict.
        size: width and height of the image for which the computation is counted.

    Returns:
        ``parameters``: in ``total``, in the ``backbone``, and what is ``trained`` in the last stage of the config.
        ``gflops``: task to those in ``total`` and in the ``backbone`` for a blank image, and ``all tasks`` for all of
        them in one pass. ``experts``: of each layer of the backbone with experts, their number.
    """
    model: Any = build_model(config, state)
    width, height = size
    stages = config.get("stages") or []
    resting = modules_to_freeze(model, stages[-1]["freeze"], stages[-1].get("freeze_except", ())) if stages else []
    backbone: Any = model.backbone
    layers = backbone.moe_layers().values() if hasattr(backbone, "moe_layers") else ()
    names = [*model.tasks]
    passes = {name: [name] for name in names} | ({ALL_TASKS: names} if len(names) > 1 else {})
    return dict(
        parameters=dict(
            total=_elements(model), backbone=_elements(backbone), trained=trainable_without(model, resting)
        ),
        experts=[layer.experts.num_experts for layer in layers],
        gflops=dict(size=f"{width}x{height}", **{key: _gflops(model, own, size) for key, own in passes.items()}),
    )


def evaluate(config: Config, checkpoint: Path, name: str) -> dict[str, float]:
    """Run the test loop of a config, without pictures.

    Args:
        config: of the run.
        checkpoint: its weights.
        name: of the experiment; runs at the same time need different ones.

    Returns:
        Metric to its value.
    """
    config = copy.deepcopy(config)
    if not config.get("test_dataloader"):
        raise MTAdaptError("--evaluate: the config has no test_dataloader")
    (config.get("default_hooks") or {}).pop("visualization", None)
    config.load_from, config.resume, config.launcher = str(checkpoint), False, "none"
    config.experiment_name = name
    with tempfile.TemporaryDirectory() as folder:
        config.work_dir = folder
        metrics = build_runner(config).test()
    # Metrics are numbers of four digits behind the point, some of them in single precision.
    return {key: round(float(value), 4) for key, value in metrics.items()}


def _elements(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _gflops(model: Any, tasks: Sequence[str], size: tuple[int, int]) -> dict[str, float]:
    """Of one prediction of some tasks for one blank image."""
    width, height = size
    meta = dict(img_path="blank", img_shape=(height, width), ori_shape=(height, width), scale_factor=(1.0, 1.0))
    sample = MultiTaskDataSample(metainfo=dict(**meta, source="blank", labelled_tasks=tuple(tasks)))
    data = dict(inputs=[torch.zeros(3, height, width, dtype=torch.uint8)], data_samples=[sample])

    def predict() -> None:
        model(**model.data_preprocessor(data, False), mode="predict")

    flops = count_flops(model, predict)
    return dict(total=sum(flops.values()) / 1e9, backbone=flops.get("backbone", 0) / 1e9)


def measurement_table(models: Mapping[str, Mapping[str, Any]], markdown: bool = False) -> str:
    """Format measurements side by side.

    Args:
        models: a model's name to what :func:`measure` gives, with its ``metrics`` if they are known.
        markdown: as a table of Markdown.
    """
    tasks = list(dict.fromkeys(name for model in models.values() for name in model["gflops"] if name != "size"))
    tasks.sort(key=lambda name: name == ALL_TASKS)
    metrics = _main_metrics(models)
    heads = ["model", "experts a layer", "parameters", "backbone", "trained"]
    table = PrettyTable([*heads, *(f"{name} GFLOPs" for name in tasks), *(key.replace("/", " ") for key in metrics)])
    table.align = "r"
    table.align["model"] = "l"
    for name, model in models.items():
        gflops = [model["gflops"].get(task) for task in tasks]
        values = [model.get("metrics", {}).get(key) for key in metrics]
        table.add_row(
            [
                name,
                _range(model["experts"]),
                *(f"{model['parameters'][part]:,}" for part in ("total", "backbone", "trained")),
                *("-" if each is None else f"{each['total']:.3f}" for each in gflops),
                *("-" if value is None else _number(value) for value in values),
            ]
        )
    if markdown:
        table.set_style(TableStyle.MARKDOWN)
    return table.get_string()


def _main_metrics(models: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The metric that stands for each task."""
    order = {name: place for place, name in enumerate(MAIN)}
    main: dict[str, str] = {}
    for key in dict.fromkeys(key for model in models.values() for key in model.get("metrics", {})):
        task, _, name = key.partition("/")
        if name in order and order[name] <= order[main.get(task, name)]:
            main[task] = name
    return [f"{task}/{name}" for task, name in main.items()]


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "-"
    return str(numbers[0]) if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) <= 1 else f"{value:.2f}"
