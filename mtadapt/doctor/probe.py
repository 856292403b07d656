"""Try imports and ops, in a process of its own that may crash or hang; run by path, not imported.

    python -c "import runpy; runpy.run_path('.../probe.py', run_name='__main__')"

Prints one JSON object a line, before and after each step: ``{"step": "torch"}`` and
``{"step": "torch", "error": "", "facts": {...}, "warnings": [...]}``. This file imports nothing of mtadapt, because its
folder is tried too.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any, TextIO


def try_torch() -> dict[str, Any]:
    """Import torch and compute something on every device."""
    import torch

    devices = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        try:
            assert (torch.ones(2, device=f"cuda:{index}") + 1).sum().item() == 4
            error = ""
        except (RuntimeError, AssertionError) as caught:
            error = str(caught).strip().splitlines()[0]
        free = 0 if error else torch.cuda.mem_get_info(index)[0]
        devices.append(
            dict(
                name=properties.name,
                total=properties.total_memory,
                free=free,
                capability=f"{properties.major}.{properties.minor}",
                error=error,
            )
        )
    distributed = torch.distributed.is_available()
    mps = getattr(torch.backends, "mps", None)
    return dict(
        version=torch.__version__,
        cuda=torch.version.cuda,
        cudnn=torch.backends.cudnn.version(),
        devices=devices,
        mps=bool(mps and mps.is_available()),
        nccl=".".join(map(str, torch.cuda.nccl.version()))
        if distributed and torch.distributed.is_nccl_available() and torch.cuda.is_available()
        else None,
        gloo=distributed and torch.distributed.is_gloo_available(),
        threads=torch.get_num_threads(),
    )


def try_torchvision() -> dict[str, Any]:
    """Import torchvision and call one of its compiled ops: two of three boxes overlap."""
    import torch
    import torchvision.ops

    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
    kept = torchvision.ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist()
    if kept != [0, 2]:
        raise RuntimeError(f"torchvision.ops.nms kept the boxes {kept} of three, not [0, 2]")
    return dict(version=torchvision.__version__)


def try_mtadapt() -> dict[str, Any]:
    """Import the package, which serves mmcv's ops where they are not compiled."""
    import mtadapt

    return dict(version=mtadapt.__version__, folder=os.path.dirname(os.path.abspath(mtadapt.__file__)))


def try_mmcv_ops() -> dict[str, Any]:
    """Call mmcv's ops, compiled or served, on the CPU and on the first GPU."""
    import torch
    from mmcv.ops import nms, roi_align

    compiled = getattr(sys.modules.get("mmcv._ext"), "__file__", None) is not None
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    failed = {}
    for device in devices:
        boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]], device=device)
        try:
            kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7], device=device), 0.5)[1].tolist()
            rois = torch.tensor([[0.0, 0, 0, 4, 4]], device=device)
            pooled = roi_align(torch.ones(1, 1, 8, 8, device=device), rois, 2).flatten().tolist()
            if kept != [0, 2] or pooled != [1.0] * 4:
                failed[device] = f"wrong values: nms {kept}, roi_align {pooled}"
        except (RuntimeError, NotImplementedError) as error:
            failed[device] = str(error).strip().splitlines()[0]
    return dict(compiled=compiled, devices=devices, failed=failed)


def importing(name: str) -> Callable[[], dict[str, Any]]:
    """Return a step that imports a module."""

    def step() -> dict[str, Any]:
        return dict(version=getattr(importlib.import_module(name), "__version__", None))

    return step


#: In an order in which the first failure is the cause of those behind it.
STEPS: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": try_torch,
    "torchvision": try_torchvision,
    "mtadapt": try_mtadapt,
    "mmengine": importing("mmengine"),
    "mmcv": importing("mmcv"),
    "mmcv.ops": try_mmcv_ops,
    "mmdet": importing("mmdet.models"),
    "mmseg": importing("mmseg.models"),
    "mmpretrain": importing("mmpretrain.models"),
    "open_clip": importing("open_clip"),
    "mtadapt.models": importing("mtadapt.models"),
    "mtadapt.datasets": importing("mtadapt.datasets"),
}


def reason(error: BaseException) -> str:
    """Kind and first line of an exception."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def main() -> None:
    """Run the steps; libraries that print do so on stderr."""
    out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for name, step in STEPS.items():
        print(json.dumps(dict(step=name)), file=out, flush=True)
        answer: dict[str, Any] = dict(step=name, error="", facts={})
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                answer["facts"] = step()
            except (Exception, SystemExit) as error:
                answer["error"] = reason(error)
        answer["warnings"] = [str(one.message).strip().splitlines()[0] for one in caught if str(one.message).strip()]
        print(json.dumps(answer), file=out, flush=True)
    out.close()
    # Libraries that were imported half may hang or crash at exit.
    os._exit(0)


if __name__ == "__main__":
    main()
