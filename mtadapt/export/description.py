"""What an exported file tells of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mtadapt.export.graph import MultiTaskGraph
from mtadapt.version import __version__


def describe(
    graph: MultiTaskGraph,
    dataset_meta: Mapping[str, Any],
    config: str,
    weights: str,
    fixed_size: tuple[int, int] | None,
) -> dict[str, Any]:
    """What somebody needs who has the file alone.

    Args:
        graph: what is exported.
        dataset_meta: metainfo of the dataset, of a checkpoint.
        config: name of the config.
        weights: fingerprint of the weights.
        fixed_size: width and height, where others are not taken.

    Returns:
        Values that JSON has.
    """
    own: Any = graph.model.data_preprocessor
    mean, std = (own.mean.flatten().tolist(), own.std.flatten().tolist()) if own._enable_normalize else (None, None)
    metas = dataset_meta.get("tasks") or {}
    classes = {name: list((metas.get(name) or {}).get("classes") or ()) for name in graph.names}
    return dict(
        tasks={name: graph.model.tasks[name].library for name in graph.names},
        classes={name: names for name, names in classes.items() if names},
        outputs=graph.outputs,
        input_layout="NHWC uint8, BGR as OpenCV reads; normalised and padded inside",
        size=list(fixed_size) if fixed_size else None,
        postprocess=graph.postprocess,
        mean=mean,
        std=std,
        bgr_to_rgb=bool(own._channel_conversion),
        pad_size_divisor=graph.divisor,
        config=config,
        weights=weights,
        mtadapt_version=__version__,
    )
