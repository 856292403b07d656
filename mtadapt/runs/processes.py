"""The trainings as processes of their own: started, told apart in their logs, and ended with the tool."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import mtadapt

#: Output of a run.
LOG = "output.txt"
#: The file in the folder of a run that is locked as long as it runs.
LOCK = ".lock"
# The line of a log that tells why a run failed: torchrun writes a page behind it.
_REASON = re.compile(r"(\[rank\d+\]: ?)?(error: |[\w.]+(Error|Exception|Interrupt)\b)")
# Seconds in which a training may end by itself.
_GRACE = 10.0


class Stopped(Exception):  # noqa: N818
    """The tool is being stopped; no more runs are started."""


class Processes:
    """Start trainings and, when the tool is stopped, end those that it has started."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, command: Sequence[str], log: Path, env: dict[str, str] | None = None, keep_open: int = -1) -> int:
        """Run a command, its output at the end of a log.

        Args:
            command: program and arguments.
            log: file for the output, which begins with the command.
            env: further environment variables.
            keep_open: number of an open file that the process shares, for a lock that lasts as long as it.

        Returns:
            The exit status, negative for a signal.

        Raises:
            Stopped: when :meth:`stop` was called before or meanwhile.
        """
        with log.open("a") as output:
            output.write(f"$ {' '.join(command)}\n")
            output.flush()
            with self._lock:
                self.check()
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **_package_path(), **(env or {})},
                    pass_fds=[keep_open] if keep_open >= 0 else [],
                    # A group of its own, which ends as a whole: torchrun and workers too.
                    start_new_session=True,
                )
                self._running.add(process)
        code = process.wait()
        with self._lock:
            self._running.discard(process)
            self.check()
        return code

    def check(self) -> None:
        """Raise :class:`Stopped` after :meth:`stop`."""
        if self._stopped:
            raise Stopped

    def stop(self) -> None:
        """End the processes that are running, and start no others."""
        with self._lock:
            self._stopped = True
            running = list(self._running)
        for process in running:
            _signal(process, signal.SIGTERM)
        end = time.monotonic() + _GRACE
        while any(process.poll() is None for process in running) and time.monotonic() < end:
            time.sleep(0.1)
        for process in running:
            _signal(process, signal.SIGKILL)


def _signal(process: subprocess.Popen, number: int) -> None:
    """Send a signal to what is left of the group of a process."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _package_path() -> dict[str, str]:
    """Let the runs import the package that this process has imported, wherever another one is installed."""
    root = str(Path(mtadapt.__file__).resolve().parents[1])
    return dict(PYTHONPATH=os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]))


def training_command(
    tool: Path, config: Path, folder: Path, flags: Sequence[str] = (), processes: int = 0
) -> list[str]:
    """Command line of a training that goes on where it stopped.

    Args:
        tool: ``tools/train.py``.
        config: its config.
        folder: its work directory.
        flags: further flags of ``tools/train.py``.
        processes: number of processes on this machine; 0 for one without a launcher.
    """
    start = [sys.executable]
    if processes:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [*start, str(tool), str(config), "--work-dir", str(folder), "--resume"]
    return [*command, *(["--launcher", "pytorch"] if processes else []), *flags]


@contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Lock the folder of a run as long as this process, or one that shares the file, is alive.

    Yields:
        Number of the open file, or None when another process has the lock.
    """
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield file.fileno()


def busy(folder: Path) -> bool:
    """Whether a process has the lock of a folder."""
    if not (folder / LOCK).is_file():
        return False
    with locked(folder) as lock:
        return lock is None


def reason_of(log: Path, code: int) -> str:
    """Why a run failed: the last line of its log, or of the error in it where a launcher writes on behind it."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    own = lines[starts[-1] + 1 if starts else 0 :]
    launched = any("torch.distributed" in line for line in lines[starts[-1] :][:1]) if starts else False
    errors = [line for line in own if _REASON.match(line) and "ChildFailedError" not in line] if launched else []
    line = (errors or own or ["it printed nothing"])[-1].removeprefix("error: ")
    how = f"signal {-code}" if code < 0 else f"exit status {code}"
    return f"{line} ({how})"
