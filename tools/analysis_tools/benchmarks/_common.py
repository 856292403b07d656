"""What all benchmarks share: child processes, medians and the printed lines."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "benchmark.py"
# One thread, so that the seconds of the processor compare on a busy machine; and large blocks go back to the system at
# once, or the peak memory would measure the allocator (it varied by a factor of two from run to run).
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1000000"}


def peak_mib() -> float:
    """Peak resident memory of this process in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss, which a child takes over from its parent.
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run_child(name: str, *options: object) -> dict:
    """Run a subcommand in a process of its own, for the peak memory of a process never falls.

    Returns:
        The JSON object on the last line that it prints.

    Raises:
        RuntimeError: when it fails, with the end of what it printed.
    """
    command = [sys.executable, str(SCRIPT), name, *map(str, options)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(map(str, options))} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def in_turns(name: str, routes: Sequence[str], repeats: int, *options: object) -> dict[str, list[dict]]:
    """Run the child of every route ``repeats`` times in turns, after one warm-up each that does not count."""
    found: dict[str, list[dict]] = {route: [] for route in routes}
    for number in range(repeats + 1):
        for route in routes:
            result = run_child(name, "--route", route, *options)
            if number:
                found[route].append(result)
    return found


def print_machine() -> None:
    """Print what the absolute numbers depend on."""
    import torch

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    print(f"machine: {model}, {cores} cores; Python {platform.python_version()}, torch {torch.__version__}")


def print_ratio(
    what: str, stock: Sequence[float], ours: Sequence[float], names: tuple[str, str] = ("stock", "mtadapt")
) -> float | None:
    """Print the two medians and the second over the first; return that ratio."""
    first, second = statistics.median(stock), statistics.median(ours)
    ratio = second / first if first else None
    print(
        f"{what}: {names[0]} {first:.2f}, {names[1]} {second:.2f}, ratio {'none' if ratio is None else f'{ratio:.3f}'}",
        flush=True,
    )
    return ratio
