"""A trained multi-task model as one graph, from the bytes of images to the predictions of all tasks."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mtadapt.errors import MTAdaptError
from mtadapt.export.layers import replace_layers
from mtadapt.export.windows import WindowAttention
from mtadapt.models import MultiTaskModel
from mtadapt.models.moe import MoELayer
from mtadapt.models.multi_task_model import Features


class MultiTaskGraph(nn.Module):
    """Normalisation, padding, shared features and tasks, in tensors alone.

    Args:
        model: in evaluation mode; it is copied.
        tasks: names of the tasks, all of them by default.
        postprocess: whether predictions are given, or what the heads give before suppression and argmax.

    Attributes:
        names: of the tasks.
        postprocess: see above.
        divisor: of the sides of padded images.
        has_experts: whether layers choose experts.
        outputs: name of each output, ``<task>_<what>``, in their order.

    Raises:
        MTAdaptError: for an unknown task, or one that has no form in a graph.
    """

    def __init__(self, model: MultiTaskModel, tasks: Sequence[str] | None = None, postprocess: bool = True) -> None:
        super().__init__()
        names = list(tasks or model.tasks)
        unknown = [name for name in names if name not in model.tasks]
        if unknown:
            raise MTAdaptError(f"--tasks {unknown[0]}: no task of the model; it has {', '.join(model.tasks)}")
        for name in names:
            route = name if model.routing is None else model.routing[name]
            if not isinstance(route, str):
                raise MTAdaptError(
                    f"task {name!r}: a mixture of routers ({dict(route)}) has no form in a graph; leave the task out "
                    "with --tasks"
                )
        self.model = model = copy.deepcopy(model)
        self.names, self.postprocess = names, postprocess
        graphs = {name: _task_graph(model.tasks[name], name, postprocess) for name in names}
        self.graphs = nn.ModuleDict(graphs)
        self.divisor = int(model.data_preprocessor.pad_size_divisor)
        replace_layers(self.model)
        self.has_experts = any(isinstance(module, MoELayer) for module in self.model.modules())
        self.outputs = [f"{name}_{what}" for name in names for what in graphs[name].outputs]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Predict.

        Args:
            images: ``(N, H, W, 3)`` uint8, in the order of channels that the model was trained with.

        Returns:
            Output to its value.
        """
        size = (images.shape[1], images.shape[2])
        inputs = self.prepare(images)
        padded = (inputs.shape[2], inputs.shape[3])
        features = self._features(inputs)
        found: list[Tensor] = []
        for name in self.names:
            found += self.graphs[name](features[name][self.model.tasks[name].backbone.source], size, padded)
        return dict(zip(self.outputs, found, strict=True))

    def _features(self, inputs: Tensor) -> dict[str, Features]:
        """The shared features for each task; tasks with equal routes through the experts share a pass."""
        routing = self.model.routing
        if routing is None:
            return dict.fromkeys(self.names, self.model.extract_features(inputs))
        first = {routing[name]: name for name in reversed(self.names)}
        passes = {route: self.model.extract_features(inputs, name) for route, name in first.items()}
        return {name: passes[routing[name]] for name in self.names}

    def prepare(self, images: Tensor) -> Tensor:
        """What :class:`~mtadapt.models.MultiTaskDataPreprocessor` does with images of one size: ``(N, 3, H', W')``."""
        own: Any = self.model.data_preprocessor
        inputs = images.permute(0, 3, 1, 2)
        if own._channel_conversion:
            inputs = inputs.flip(1)
        inputs = inputs.float()
        if own._enable_normalize:
            inputs = (inputs - own.mean) / own.std
        if self.divisor == 1:
            return inputs
        return self._pad(inputs, float(own.pad_value))

    def _pad(self, inputs: Tensor, value: float) -> Tensor:
        """Pad at the right and the bottom to multiples of the divisor."""
        sides = inputs.shape[2:]
        # The new sides are written as multiples, because the exporter then sees that every stride divides them. Rows
        # and columns are picked, because F.pad has a way of its own for images that need no padding, and a graph can
        # follow only one of the two. Nothing negative is divided, because ONNX rounds that to zero.
        multiples = [(side + self.divisor - 1) // self.divisor * self.divisor for side in sides]
        places = [torch.arange(multiple, device=inputs.device) for multiple in multiples]
        rows, columns = (place.clamp(max=side - 1) for place, side in zip(places, sides, strict=True))
        inside = (places[0] < sides[0])[:, None] & (places[1] < sides[1])
        return torch.where(inside, inputs[:, :, rows][:, :, :, columns], value)


def _task_graph(task: Any, name: str, postprocess: bool) -> Any:
    # Imported here, because a model without detectors needs no mmdet.
    if task.library == "mmdet":
        from mtadapt.export.detectors import detector_graph

        return detector_graph(task, name, postprocess)
    from mtadapt.export.dense import classifier_graph, segmentor_graph

    make = segmentor_graph if task.library == "mmseg" else classifier_graph
    return make(task, name, postprocess)


@torch.no_grad()
def warm_up(graph: MultiTaskGraph) -> int:
    """Run a graph once, so that what is computed at the first inference alone is a constant of it afterwards.

    Returns:
        The smallest side of images, in pixels, that shows a tracer what there is to do for every size: two multiples of
        the divisor, and more than one window where a backbone has windows.
    """
    # An odd multiple of the divisor, which shows strides that do not divide it.
    side = (max(3, -(-64 // graph.divisor)) | 1) * graph.divisor
    graph(torch.zeros(2, side, side, 3, dtype=torch.uint8))
    windows = [module for module in graph.modules() if isinstance(module, WindowAttention)]
    return max([2 * graph.divisor + 2, *((each.window + 1) * -(-side // each.seen[0]) for each in windows)])
