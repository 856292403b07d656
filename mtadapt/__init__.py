"""Multi-task adaptation of pretrained backbones on the OpenMMLab stack.

Importing the package makes stock models run on an mmcv without compiled ops (see :mod:`mtadapt.ops`) and imports
neither mmdet nor mmseg nor mmpretrain; they come with the first of the models that is asked for.
"""

import sys
from importlib import import_module
from typing import Any

from mtadapt.errors import MTAdaptError
from mtadapt.ops import activate as _activate_ops
from mtadapt.version import __version__


def _is_doctor() -> bool:
    """Whether this process is ``python -m mtadapt.doctor`` or ``mtadapt doctor``.

    It has to start where torch or torchvision are broken, which it then names with the remedy.
    """
    program = getattr(sys, "argv", [""])[0]
    if program == "-m":  # while the packages around the module are imported
        return "mtadapt.doctor" in sys.orig_argv
    return program.replace("\\", "/").rpartition("/")[2] in ("mtadapt", "mtadapt.exe", "mtadapt-script.py")


if not _is_doctor():
    _activate_ops()

_MODELS = (
    "LVAdapter",
    "MultiScaleAdapter",
    "MultiTaskModel",
    "OpenCLIPTextEncoder",
    "PrecomputedTextEmbeddings",
    "SentenceTextEncoder",
)
__all__ = ["MTAdaptError", "__version__", *_MODELS]


def __getattr__(name: str) -> Any:
    if name in _MODELS:
        return getattr(import_module("mtadapt.models"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
