"""Checkpoint files that are whole: write them so, and find them."""

from __future__ import annotations

import logging
import os
import re
import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log
from mmengine.runner.checkpoint import get_torch_safe_globals
from torch import Tensor

from mtadapt.errors import MTAdaptError, first_line

TEMPORARY = ".tmp"


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file so that it is there in whole or not at all, even if the process or the machine dies meanwhile.

    The content goes to a temporary file beside it, which is synced to the disk and renamed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY)
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


@register_backend("atomic")
class AtomicBackend(LocalBackend):
    """MMEngine's backend for local files with :func:`write_atomically`: ``backend_args=dict(backend='atomic')``."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write ``obj``."""
        write_atomically(filepath, obj)


def newest_whole_checkpoint(folder: str | Path) -> str | None:
    """Path of the checkpoint that was written last and can be read to its end; others are reported and passed over.

    Checkpoints are ``iter_<n>.pth``, ``epoch_<n>.pth`` and the one that the file ``last_checkpoint`` names, in the
    folder itself; where it has none, in the folder of that one. Ours: the time of writing counts, not the number,
    because the folder may hold the checkpoints of an older and longer run. A folder among them, as DeepSpeed writes, is
    taken as it is.

    Raises:
        MTAdaptError: when there are checkpoints, and none is whole.
    """
    folder = Path(folder)
    pointer = folder / "last_checkpoint"
    named = Path(pointer.read_text().strip()) if pointer.is_file() else folder / "none"
    found: set[Path] = set()
    for place in (folder, named.parent):
        found = found or {path for path in place.glob("*.pth") if _number(path) >= 0 or path.name == named.name}
    for path in sorted(found, key=lambda path: (path.stat().st_mtime_ns, _number(path)), reverse=True):
        damage = damage_of(path)
        if damage is None:
            return str(path)
        print_log(f"{path}: {damage}; passed over", logger="current", level=logging.WARNING)
    if found:
        raise MTAdaptError(
            f"{folder}: none of the {len(found)} checkpoints is whole; copy one again, or train without --resume"
        )
    return None


def _number(path: Path) -> int:
    """Iterations or epochs in the name of a checkpoint, or -1."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


_NAME = re.compile(r"(?:iter|epoch)_(\d+)\.pth")
#: How the archive that PyTorch writes begins, and what it wrote before 1.6.
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_NO_CHECKPOINT = "it is no checkpoint of PyTorch"


def damage_of(path: str | Path) -> str | None:
    """What is wrong with a checkpoint file, or None when it is whole.

    The checksums of all entries are compared, which reads the file once.
    """
    path = Path(path)
    if path.is_dir():
        return None
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            begins = file.read(len(_ZIP))
        if begins.startswith(_PICKLE):
            # Written by PyTorch before 1.6, without checksums.
            return None
        if not _ZIP.startswith(begins):
            return _NO_CHECKPOINT
        return f"the checkpoint is truncated ({path.stat().st_size:,} bytes)"
    try:
        with zipfile.ZipFile(path) as file:
            if not any(name.endswith("/data.pkl") for name in file.namelist()):
                return _NO_CHECKPOINT
            broken = file.testzip()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, zlib.error) as error:
        return f"the checkpoint is damaged ({error})"
    return f"the checkpoint is damaged at {broken}" if broken else None


def remove_leftovers(folder: str | Path) -> None:
    """Remove temporary files of checkpoints whose writing was interrupted."""
    for path in Path(folder).glob(f"*.pth{TEMPORARY}"):
        path.unlink(missing_ok=True)


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict of a checkpoint file; nothing that the file holds is executed.

    Args:
        path: a checkpoint of MMEngine, or a file with a state dict alone.

    Returns:
        Names and values in the order of the file, on the CPU.

    Raises:
        MTAdaptError: when there is no such file, it is not whole, or holds something else.
    """
    content = _read(Path(path))
    state = content.get("state_dict", content) if isinstance(content, dict) else {}
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise MTAdaptError(f"{path}: holds no state dict; give a checkpoint of tools/train.py")
    return dict(state)


def load_dataset_meta(path: str | Path) -> dict[str, Any]:
    """Read the metainfo of the dataset that a checkpoint was trained on, as safely as :func:`load_weights`.

    Returns:
        What MMEngine wrote; nothing where the file does not have it.
    """
    return dict(_meta(path).get("dataset_meta") or {})


def load_config_text(path: str | Path) -> str:
    """Read the config that a checkpoint was trained with, as safely as :func:`load_weights`.

    Returns:
        The text that MMEngine wrote, which is not to be executed; empty where the file does not have it.
    """
    text = _meta(path).get("cfg")
    return text if isinstance(text, str) else ""


def _meta(path: str | Path) -> dict[str, Any]:
    content = _read(Path(path))
    meta = content.get("meta") if isinstance(content, dict) else None
    return meta if isinstance(meta, dict) else {}


def _read(path: Path) -> Any:
    if not path.is_file():
        raise MTAdaptError(f"{path}: no such file; give a checkpoint, e.g. work_dirs/NAME/iter_100.pth")
    try:
        # Mapped, because optimizers are larger than weights and are not looked at.
        with torch.serialization.safe_globals(get_torch_safe_globals()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (RuntimeError, OSError, EOFError, UnpicklingError) as error:
        # PyTorch's own text is a page of advice around the error of the unpickler.
        reason = damage_of(path) or first_line(error.__context__ if isinstance(error.__context__, Exception) else error)
        raise MTAdaptError(f"{path}: no checkpoint that can be read safely: {reason}") from error
