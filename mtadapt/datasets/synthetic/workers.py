"""Do many jobs on all cores."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cv2

from mtadapt.errors import MTAdaptError

Mapper = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]


def check_workers(workers: int | None) -> None:
    """Raise MTAdaptError for a number of workers that is out of range."""
    if workers is not None and workers < 1:
        raise MTAdaptError(f"workers is {workers}, it must be 1 or more")


@contextmanager
def mapper(workers: int | None) -> Iterator[Mapper]:
    """A ``map`` whose results come in the order of the jobs, on several processes.

    Args:
        workers: Processes, None for one a core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = workers or cores
    if count == 1:
        yield lambda function, jobs: map(function, jobs)
        return
    # Forked workers start at once; elsewhere each one imports the package anew. OpenCV's threads must end before the
    # fork: a child that inherits a pool without its threads waits for them forever.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        with context.Pool(count) as pool:
            yield lambda function, jobs: pool.imap(function, jobs, chunksize=max(1, min(16, len(jobs) // (4 * count))))
    finally:
        cv2.setNumThreads(threads)
