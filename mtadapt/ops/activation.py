"""Building ``mmcv._ext``, installing it, and mending modules that were imported before it was there."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import NoReturn

from mtadapt.errors import MTAdaptError

EXTENSION = "mmcv._ext"
REMEDY = (
    "build mmcv with compiled ops (torch, setuptools>=80 and a compiler installed; FORCE_CUDA=1 for the CUDA ops): "
    "FORCE_CUDA=1 pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall "
    "--no-binary onedl-mmcv onedl-mmcv"
)


def activate() -> bool:
    """Serve mmcv's compiled ops by torchvision if mmcv has none.

    May be called before or after mmcv, mmdet, mmseg or mmpretrain were imported: what these put in place of ops that
    they did not find is replaced by the ops.

    Returns:
        Whether the fallback was installed by this call.

    Raises:
        MTAdaptError: If the fallback is needed and torchvision is missing or does not fit torch.
    """
    mmcv_spec = importlib.util.find_spec("mmcv")  # does not import mmcv
    if EXTENSION in sys.modules or mmcv_spec is None:
        return False
    if PathFinder.find_spec(EXTENSION, mmcv_spec.submodule_search_locations) is not None:
        return False
    sys.modules[EXTENSION] = module = build_fallback()
    if "mmcv" in sys.modules:
        sys.modules["mmcv"]._ext = module  # type: ignore[attr-defined]
    mend_imported_modules()
    return True


def build_fallback() -> ModuleType:
    """Return a module that has the served ops, and a stub for every other name; nothing is installed.

    Raises:
        MTAdaptError: If torchvision is missing or does not fit torch.
    """
    check_torchvision()
    from mtadapt.ops.served import SERVED_OPS

    module = ModuleType(EXTENSION, "mmcv's compiled ops, served by torchvision through mtadapt.")
    module.__spec__ = ModuleSpec(EXTENSION, loader=None, origin=__name__)  # mmengine asks find_spec
    module.__dict__.update(SERVED_OPS)
    module.__dict__["__getattr__"] = _stub
    return module


def check_torchvision() -> None:
    """Raise an :class:`MTAdaptError` if torchvision's ops cannot be called."""
    try:
        import torch
        import torchvision

        torch.ops.torchvision._roi_align_backward, torch.ops.torchvision._deform_conv2d_backward  # noqa: B018
        torchvision.extension._assert_has_ops()
    except (ImportError, RuntimeError, AttributeError) as error:
        raise MTAdaptError(
            f"mmcv has no compiled ops and torchvision, which would serve them, cannot be used: "
            f"{str(error).splitlines()[0]}; install the torchvision that was built for this torch "
            f"(pip install --force-reinstall torch torchvision, both from one index)"
        ) from error


def not_served(name: str) -> RuntimeError:
    """Return the error for a call of an op that the fallback does not have."""
    from mtadapt.ops.served import SERVED_OPS

    return RuntimeError(
        f"{name}: this mmcv has no compiled ops and torchvision cannot serve this one "
        f"(served: {', '.join(sorted(SERVED_OPS))}); {REMEDY}"
    )


def _stub(name: str) -> Callable[..., NoReturn]:
    """Stand in for an op that is not served (the ``__getattr__`` of the fallback module)."""
    if name.startswith("__"):
        raise AttributeError(name)

    def stub(*args: object, **kwargs: object) -> NoReturn:
        raise not_served(name)

    stub.__name__ = stub.__qualname__ = name
    return stub


def mend_imported_modules() -> None:
    """Run again the guarded imports that failed for want of ``mmcv._ext``.

    OpenMMLab's modules import ops in ``try: from mmcv.ops import nms; except ImportError: <a substitute>``. In every
    such module that is loaded, the body of the ``try`` runs again in the module's namespace, so that the substitute is
    replaced. mmseg and mmpretrain guard imports of ``mmdet.models`` likewise, which failed for the same reason; a class
    that was derived from the substitute gets the true base.
    """
    for package, guarded in (
        ("mmcv", ("mmcv.ops",)),
        ("mmdet", ("mmcv.ops", "mmcv.cnn.bricks.transformer")),
        ("mmpretrain", ("mmcv.ops", "mmdet.models")),
        ("mmseg", ("mmcv.ops", "mmdet.models")),
    ):
        for name, module in list(sys.modules.items()):
            if name.startswith(f"{package}.") and not name.startswith("mmcv.ops"):
                _run_guarded_imports(module, guarded)


def _run_guarded_imports(module: ModuleType, guarded: tuple[str, ...]) -> None:
    try:
        source = inspect.getsource(module)
    except (OSError, TypeError):
        return
    if not any(name in source for name in guarded):
        return
    tree = ast.parse(source)
    namespace = module.__dict__
    for block in (node for node in tree.body if isinstance(node, ast.Try)):
        if not any(isinstance(n, ast.ImportFrom) and (n.module or "").startswith(guarded) for n in block.body):
            continue
        before = dict(namespace)
        with suppress(ImportError):
            code = compile(ast.Module(block.body, type_ignores=[]), module.__file__ or "", "exec")
            exec(code, namespace)  # noqa: S102  a module's own statements, in that module
        _replace_bases(tree, before, namespace)


def _replace_bases(tree: ast.Module, before: dict[str, object], namespace: dict) -> None:
    """Give the classes whose base is a name with a new value that value as their base."""
    for node in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for base in (base.id for base in node.bases if isinstance(base, ast.Name)):
            old, new = before.get(base), namespace.get(base)
            if old is not None and old is not new:
                cls = namespace[node.name]
                cls.__bases__ = tuple(new if candidate is old else candidate for candidate in cls.__bases__)
