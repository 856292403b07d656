"""Which experts the tasks of a mixture-of-experts model use: read from its weights, summed up, drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

#: Names in a state dict, behind the name of a mixture-of-experts layer.
LOAD = "usage.load"
PROBABILITY = "usage.probability"
UPDATES = "usage.updates"
#: Up to this number of experts the values are written into the cells.
_WRITTEN = 16
_PANEL_WIDTH = 6.0


@dataclass(frozen=True)
class LayerUsage:
    """Use of the experts of one layer, as its running averages have it.

    Attributes:
        name: of the layer, in the model.
        tasks: names of the ``T`` tasks.
        load: ``(T, E)``, the share of a task's picks that an expert gets; a row sums to 1.
        probability: ``(T, E)``, the mean probability of an expert for a task's tokens; a row sums to 1.
        seen: ``(T,)`` bool, whether the layer has been trained on the task.
        visible: ``(T,)``, how many experts, from the first on, the task's router chooses from.
        banks: how many experts were made at a time; they sum to ``E``.
    """

    name: str
    tasks: tuple[str, ...]
    load: np.ndarray
    probability: np.ndarray
    seen: np.ndarray
    visible: np.ndarray
    banks: tuple[int, ...]

    @property
    def entropies(self) -> dict[str, float | None]:
        """Entropy of each task's mean probabilities in nats; at most ``log E``, None for a task that was not seen."""
        return {
            task: -float(_x_log_x(row).sum()) if seen else None
            for task, row, seen in zip(self.tasks, self.probability, self.seen, strict=True)
        }

    @property
    def mutual_information(self) -> float:
        """Mutual information of task and expert in nats: 0 when all tasks use the experts alike, at most ``log T``.

        The tasks that were seen have the same weight.
        """
        rows = self.probability[self.seen]
        if not len(rows):
            return 0.0
        return float(_x_log_x(rows).sum(1).mean() - _x_log_x(rows.mean(0)).sum())

    def as_dict(self) -> dict[str, Any]:
        """What a JSON file can hold."""
        return dict(
            mutual_information=self.mutual_information,
            entropy=self.entropies,
            load={task: _rounded(row) for task, row in zip(self.tasks, self.load, strict=True)},
            probability={task: _rounded(row) for task, row in zip(self.tasks, self.probability, strict=True)},
        )


def expert_usage(weights: Mapping[str, Tensor]) -> list[LayerUsage]:
    """Read the use of the experts from a state dict.

    Args:
        weights: names and values of the model's parameters and buffers; only the buffers' values are looked at.

    Returns:
        One entry a layer, in the order of ``weights``; none for a model without experts.
    """
    return [_layer_usage(weights, name[: -len(LOAD)]) for name in weights if name.endswith(LOAD)]


def _layer_usage(weights: Mapping[str, Tensor], prefix: str) -> LayerUsage:
    outputs: dict[str, int] = {}
    banks: dict[int, int] = {}
    for name, value in weights.items():
        if not name.startswith(prefix):
            continue
        kind, _, rest = name[len(prefix) :].partition(".")
        key = rest.partition(".")[0]
        if kind == "routers":
            outputs[key] = len(value)  # of the last entry, which is the last layer's
        elif kind == "banks":
            banks[int(key)] = len(value)
    return LayerUsage(
        name=prefix.rstrip("."),
        tasks=tuple(outputs),
        load=_shares(weights[prefix + LOAD]),
        probability=_shares(weights[prefix + PROBABILITY]),
        seen=weights[prefix + UPDATES].cpu().numpy() > 0,
        visible=np.array([*outputs.values()]),
        banks=tuple(banks[bank] for bank in sorted(banks)),
    )


def _shares(table: Tensor) -> np.ndarray:
    """Rows that sum to 1; a row of zeros stays."""
    values = table.detach().cpu().double().numpy()
    total = values.sum(1, keepdims=True)
    return np.divide(values, total, out=np.zeros_like(values), where=total > 0)


def _x_log_x(values: np.ndarray) -> np.ndarray:
    return values * np.log(np.where(values > 0, values, 1.0))


def _rounded(row: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in row]


def draw_expert_usage(layers: Sequence[LayerUsage], title: str = "", of: str = "load") -> np.ndarray:
    """Draw one panel a layer: rows are tasks, columns experts, and all panels share one scale.

    Experts that a task's router does not choose from are hatched, and so are all of a task that was not trained yet.
    White lines stand between experts that were made at different times.

    Args:
        layers: from :func:`expert_usage`, at least one.
        title: written above the panels.
        of: ``load`` (shares of the picks) or ``probability`` (mean probabilities).

    Returns:
        Picture, RGB ``(H, W, 3)`` uint8.
    """
    columns = 1 if len(layers) <= 4 else 2
    rows = -(-len(layers) // columns)
    heights = [
        max(0.62 + 0.24 * len(layer.tasks) for layer in layers[row * columns : (row + 1) * columns])
        for row in range(rows)
    ]
    figure = Figure(figsize=(_PANEL_WIDTH * columns + 1.0, sum(heights) + 1.0), dpi=120, layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, gridspec_kw=dict(height_ratios=heights)).ravel()
    top = max(float(getattr(layer, of).max()) for layer in layers) or 1.0
    for axes, layer in zip(grid, layers, strict=False):
        image = _draw_panel(axes, layer, getattr(layer, of), top)
    for axes in grid[len(layers) :]:
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=list(grid), format="{x:.0%}", fraction=0.03, pad=0.01, aspect=40)
    bar.ax.tick_params(labelsize=7)
    label = "share of a task's picks" if of == "load" else "mean probability over a task's tokens"
    figure.suptitle(": ".join([*([title] if title else []), label]), fontsize=10)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _draw_panel(axes: Any, layer: LayerUsage, values: np.ndarray, top: float) -> Any:
    num_tasks, num_experts = values.shape
    usable = layer.seen[:, None] & (np.arange(num_experts) < layer.visible[:, None])
    axes.patch.set(facecolor="0.9", hatch="////", edgecolor="0.6")
    image = axes.imshow(
        np.ma.array(values, mask=~usable), cmap="viridis", vmin=0, vmax=top, aspect="auto", interpolation="nearest"
    )
    axes.set_title(
        f"{layer.name}   I(task; expert) = {layer.mutual_information:#.2g} nats", fontsize=8, loc="left", pad=3
    )
    names = [task if seen else f"{task} (not trained)" for task, seen in zip(layer.tasks, layer.seen, strict=True)]
    axes.set_yticks(range(num_tasks), names, fontsize=8)
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256) if num_experts <= 32 * step or step == 256)
    axes.set_xticks(range(0, num_experts, step), range(0, num_experts, step), fontsize=6)
    axes.tick_params(length=2, pad=1)
    for boundary in np.cumsum(layer.banks)[:-1]:
        axes.axvline(boundary - 0.5, color="white", linewidth=2)
    if num_experts <= _WRITTEN:
        for task, expert in zip(*np.nonzero(usable), strict=True):
            value = values[task, expert]
            colour = "black" if value > 0.6 * top else "white"
            axes.text(expert, task, f"{100 * value:.0f}", ha="center", va="center", fontsize=6, color=colour)
    return image
