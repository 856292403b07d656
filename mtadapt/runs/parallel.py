"""Several calls at a time, which end together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from mtadapt.runs.processes import Processes

Item = TypeVar("Item", bound=Hashable)
Result = TypeVar("Result")


def in_parallel(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int,
    processes: Processes,
    tell: Callable[[int, Item, Result], None] | None = None,
) -> dict[Item, Result]:
    """Call a function for each item, several at a time, in the order of the items.

    Args:
        work: function, which may start processes.
        items: all different.
        jobs: calls at a time.
        processes: that are ended when a call raises an exception, or the tool gets Ctrl-C or SIGTERM.
        tell: gets the number of calls that are over, the item of the last one and what it returned.

    Returns:
        What was returned for each item.

    Raises:
        KeyboardInterrupt: for Ctrl-C and SIGTERM.
    """
    results: dict[Item, Result] = {}
    with ThreadPoolExecutor(jobs) as pool, _interruptible():
        futures = {pool.submit(work, item): item for item in items}
        waiting = set(futures)
        try:
            while waiting:
                # Now and then, so that a signal is handled.
                over, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in over:
                    item = futures[future]
                    results[item] = future.result()
                    if tell is not None:
                        tell(len(results), item, results[item])
        except BaseException:
            for future in futures:
                future.cancel()
            processes.stop()
            raise
    return {item: results[item] for item in items}


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the tool as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
