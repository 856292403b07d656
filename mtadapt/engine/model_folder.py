"""The folder that surgery on a model leaves: a config, its weights and a report."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from mtadapt.engine.checkpoints import write_atomically
from mtadapt.errors import MTAdaptError


def check_folder(path: Path) -> None:
    """Refuse a folder that is neither new nor empty.

    Raises:
        MTAdaptError: when there is something in it, or it is a file.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise MTAdaptError(f"--out {path}: exists and is not empty; name another folder, or remove it")


def write_model(
    folder: Path,
    config: Config,
    state: Mapping[str, Tensor],
    name: str = "model",
    dataset_meta: Mapping[str, Any] | None = None,
) -> tuple[Path, Path]:
    """Write a config and its weights.

    Args:
        folder: where to.
        config: as it is to be read.
        state: the state dict.
        name: of the file of weights; the config is ``config.py`` beside ``model.pth``, else ``<name>_config.py``.
        dataset_meta: classes and colours, which the inferencers of the libraries read beside the weights.

    Returns:
        Paths of the config and the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("config.py" if name == "model" else f"{name}_config.py")
    config.dump(str(path))
    buffer = io.BytesIO()
    # Copies, because a view would bring along all of what it was cut from.
    content: dict[str, Any] = dict(state_dict={key: value.clone() for key, value in state.items()})
    if dataset_meta:
        content["meta"] = dict(dataset_meta=dict(dataset_meta))
    torch.save(content, buffer)
    weights = folder / f"{name}.pth"
    write_atomically(weights, buffer.getvalue())
    return path, weights


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")


def read_report(path: Path) -> dict[str, Any]:
    """Read what :func:`write_report` wrote.

    Raises:
        MTAdaptError: when it is no report.
    """
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise MTAdaptError(f"{path}: no report ({error}); give a report.json of tools/moe") from error
    if not isinstance(report, dict) or not {"tool", "name", "after"} <= set(report):
        raise MTAdaptError(f"{path}: no report of tools/moe")
    return report


def fingerprint(state: Mapping[str, Tensor]) -> str:
    """Twelve digits that tell weights from others."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:12]
