"""Memory and disk space."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from mtadapt.doctor.finding import Finding

_GIB = 2**30
#: Below these a run may end for want of space, in GiB: a checkpoint of a Swin-B with its optimizer has 1.5.
DISK_WARNING, DISK_PROBLEM = 10.0, 1.0
#: Workers of the data loader hand over their batches in shared memory; containers often get 64 MiB.
SHARED_MEMORY = 1.0


def examine_machine(root: Path | None = None) -> list[Finding]:
    """Look at the memory and at the space of the folders that a run writes into."""
    findings = [Finding("machine", "processors", "ok", f"{_processors()}, {_memory()}")]
    cache = Path(os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser())
    places = {"work_dirs": Path.cwd(), "downloads": cache, "temporary files": Path(tempfile.gettempdir())}
    if root is not None:
        places["data"] = root
    seen: dict[int, str] = {}
    for name, place in places.items():
        existing = next((one for one in (place.absolute(), *place.absolute().parents) if one.exists()), Path("/"))
        device = existing.stat().st_dev
        if device not in seen:
            seen[device] = name
            findings.append(disk_finding(name, existing))
    shared = Path("/dev/shm")
    if shared.is_dir():
        findings.append(_shared_memory(shutil.disk_usage(shared).total))
    return findings


def disk_finding(name: str, folder: Path) -> Finding:
    """Tell how much space the disk of a folder has."""
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Finding("machine", f"disk for {name}", "warning", f"{folder}: {error.strerror}")
    free = usage.free / _GIB
    detail = f"{free:.1f} GiB free of {usage.total / _GIB:.1f} ({folder})"
    remedy = f"make room, or run in another folder: a run needs about {DISK_WARNING:g} GiB for its checkpoints"
    if free < DISK_PROBLEM:
        return Finding("machine", f"disk for {name}", "problem", detail, remedy)
    if free < DISK_WARNING:
        return Finding("machine", f"disk for {name}", "warning", detail, remedy)
    return Finding("machine", f"disk for {name}", "ok", detail)


def _shared_memory(total: int) -> Finding:
    detail = f"{total / _GIB:.1f} GiB (/dev/shm)"
    if total / _GIB < SHARED_MEMORY:
        remedy = "docker run --shm-size=8g, or train with num_workers=0"
        return Finding("machine", "shared memory", "warning", f"{detail}: little for data loaders", remedy)
    return Finding("machine", "shared memory", "ok", detail)


def _processors() -> str:
    try:
        number = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        number = os.cpu_count() or 1
    return f"{number} processors"


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / _GIB:.1f} GiB memory"
    except (AttributeError, ValueError, OSError):  # not Unix
        return "memory unknown"
