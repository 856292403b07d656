"""Which experts each task uses, after every validation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mmcv
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.engine.strategies.outline import plain_model
from mtadapt.registry import HOOKS
from mtadapt.visualization.expert_usage import LayerUsage, draw_expert_usage, expert_usage


@HOOKS.register_module()
class ExpertUsageHook(Hook):
    """Write and draw which experts the tasks use, after every validation and at the end of a training.

    ``<work_dir>/expert_usage`` gets ``iter_<n>.png`` and ``iter_<n>.json``; the picture goes to the other backends of
    the visualizer too, such as TensorBoard. The JSON holds, of each layer, the shares of every task's picks, its mean
    probabilities and their entropy, and the mutual information of task and expert, in nats. Models without experts are
    left alone.
    """

    priority = "LOW"

    def __init__(self) -> None:
        self._written: int | None = None

    def before_train(self, runner: Runner) -> None:
        """Begin a training."""
        self._written = None

    @master_only
    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Write the files of this iteration."""
        self._write(runner)

    @master_only
    def after_train(self, runner: Runner) -> None:
        """Write those of the last iteration, unless a validation has just done so."""
        if self._written != runner.iter:
            self._write(runner)

    def _write(self, runner: Runner) -> None:
        layers = expert_usage(_entries(runner))
        if not layers:
            return
        self._written = runner.iter
        file = Path(runner.work_dir, "expert_usage", f"iter_{runner.iter}.png")
        picture = draw_expert_usage(layers, f"Use of the experts, {file.stem}")
        mmcv.imwrite(picture[..., ::-1], str(file))
        write_usage(layers, file.with_suffix(".json"))
        for backend in runner.visualizer._vis_backends.values():
            if type(backend).__name__ != "LocalVisBackend":
                backend.add_image("expert_usage", picture, runner.iter)
        mean = sum(layer.mutual_information for layer in layers) / len(layers)
        runner.logger.info(
            f"Mutual information of task and expert: {mean:#.2g} nats, mean of {len(layers)} layers; {file}"
        )


def write_usage(layers: list[LayerUsage], path: Path) -> None:
    """Write what :class:`ExpertUsageHook` describes as JSON."""
    content = {layer.name: layer.as_dict() for layer in layers}
    write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())


def _entries(runner: Runner) -> dict[str, Any]:
    """The model's state dict; if its parameters are spread over processes, their outlines, but the real buffers."""
    entries = plain_model(runner).state_dict()
    for name, buffer in runner.model.named_buffers():
        for wrapper in ("_fsdp_wrapped_module.", "_checkpoint_wrapped_module."):
            name = name.replace(wrapper, "")
        name = name.removeprefix("module.")
        if name in entries:
            entries[name] = buffer
    return entries
