"""A process that dies or freezes ends the others, instead of leaving them in a collective call for ever."""

from __future__ import annotations

import atexit
import json
import logging
import multiprocessing.util
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Client, Connection, Listener, Pipe, wait
from threading import Event, Thread
from typing import Any, NamedTuple

from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mtadapt.errors import MTAdaptError
from mtadapt.registry import HOOKS

#: Seconds in which the processes have to find each other at the start.
CONNECT_SECONDS = 20.0
#: Seconds that an exception leaves for the news that another process died, which may be its cause.
NEWS_SECONDS = 2.0


@HOOKS.register_module()
class RankHeartbeatHook(Hook):
    """End all processes of a run when one of them is gone.

    A thread of each process sends a sign of life to rank 0 and gets one from it, over connections of their own, so that
    it works while the main thread waits in a collective call of any backend. The other processes log one line with the
    rank, the host and the process that is gone, and end with status 1:

    - when a process dies, at once, because its connection closes;
    - when a process ends with an exception, at once;
    - when a process is stopped, or its machine or network is down, after ``timeout``.

    Long evaluations and slow data are no silence, because the thread goes on. After the news the main thread has
    ``interval`` seconds, at most 5, to finish what it writes.

    Ours: connections, not keys in a store, because a closed one tells of a death within milliseconds, and the line then
    comes before or together with the backend's own traceback.

    Limitations: a main thread that waits for ever in a process that is otherwise alive is not noticed. A single call
    into C code that keeps Python's lock for longer than ``timeout`` looks like a frozen process; make the timeout
    longer then. Processes that cannot reach rank 0 on a port that it chooses (a firewall) are not watched, with a
    warning. What ends because of an exception waits for the others' news for up to 2 seconds. Datasets, model and
    sampler are built before the watch begins.

    Args:
        interval: seconds between two signs of life.
        timeout: seconds of silence after which a process counts as gone, at least twice the interval.

    Raises:
        MTAdaptError: for times that make no sense.
    """

    priority = "LOWEST"

    def __init__(self, interval: float = 5.0, timeout: float = 40.0) -> None:
        if not 0 < interval <= timeout / 2:
            raise MTAdaptError(
                f"RankHeartbeatHook: interval={interval}, timeout={timeout}; the interval must be more than 0, and the "
                "timeout at least twice as long"
            )
        self.interval = interval
        self.timeout = timeout
        self._heart: _Heart | None = None

    def before_run(self, runner: Runner) -> None:
        """Connect the processes, if there are several."""
        self.after_run(runner)
        if get_world_size() > 1:
            members, peers = _connect(runner.logger)
            self._heart = _Heart(members, peers, self.interval, self.timeout, runner.logger)

    def after_run(self, runner: Runner) -> None:
        """Say goodbye."""
        if self._heart is not None:
            self._heart.stop()
            self._heart = None


class _Member(NamedTuple):
    """A process of the run."""

    rank: int
    host: str
    pid: int

    def __str__(self) -> str:
        return f"rank {self.rank} (host {self.host}, process {self.pid})"


class _Heart:
    """The thread that sends and hears signs of life.

    Rank 0 is connected with every other process and passes on what it learns, the others with rank 0.

    Args:
        members: all processes, by rank.
        peers: rank to the connection with it.
        interval: seconds between two signs.
        timeout: seconds of silence that are too many.
        logger: what writes the last line.
    """

    def __init__(
        self,
        members: list[_Member],
        peers: dict[int, Connection],
        interval: float,
        timeout: float,
        logger: logging.Logger,
    ) -> None:
        self._members, self._peers = members, peers
        self._interval, self._timeout, self._logger = interval, timeout, logger
        self._me = members[get_rank()]
        self._heard = dict.fromkeys(peers, time.monotonic())
        self._news, self._is_ending, self._judged = "", Event(), Event()
        self._inbox, self._outbox = Pipe(duplex=False)
        # A data loader's worker would otherwise keep the connections of a dead process open.
        multiprocessing.util.register_after_fork(self, _Heart._close)
        atexit.register(self._end_early)
        self._thread = Thread(target=self._beat, name="rank-heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Leave, without alarm at the others."""
        atexit.unregister(self._end_early)
        self._leave("bye")
        self._close()

    def _leave(self, *farewell: str) -> None:
        self._outbox.send_bytes(json.dumps(farewell).encode())
        self._thread.join(self._interval)

    def _close(self) -> None:
        for connection in (*self._peers.values(), self._inbox, self._outbox):
            connection.close()

    def _end_early(self) -> None:
        """The process ends although the run does not: by its own mistake, or because another one is gone."""
        if os.getpid() != self._me.pid:
            return
        self._is_ending.set()
        if self._judged.wait(NEWS_SECONDS):
            self._logger.error(self._last_line())
            return
        error = getattr(sys, "last_value", None)
        first = str(error).strip().splitlines()[:1]
        self._leave("failed", f"{type(error).__name__}: {first[0] if first else ''}" if error else "an error")

    def _last_line(self) -> str:
        return f"rank {self._me.rank} ends because {self._news}"

    def _beat(self) -> None:
        """What the thread does, until this process leaves or another one is gone."""
        last = due = time.monotonic()
        while True:
            ready = wait([self._inbox, *self._peers.values()], max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if now - last > self._timeout / 2:  # this process was stopped itself, and knows nothing of the others
                self._heard = dict.fromkeys(self._peers, now)
            last = now
            if self._inbox in ready:
                self._send(*json.loads(self._inbox.recv_bytes()))
                return
            for rank, connection in [*self._peers.items()]:
                if connection in ready:
                    self._hear(rank, connection, now)
            for rank, heard in self._heard.items():
                if rank in self._peers and now - heard > self._timeout:
                    self._news = self._news or (
                        f"{self._members[rank]} has given no sign of life for {self._timeout:g} s: it is stopped, or "
                        "its machine or the network is down"
                    )
            if self._news:
                self._end()
                return
            if now >= due:
                self._send("beat")
                due = now + self._interval

    def _hear(self, rank: int, connection: Connection, now: float) -> None:
        """Take one message of a process."""
        try:
            kind, *text = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            kind, text = "died", []
        self._heard[rank] = now
        if kind in ("bye", "died", "failed"):
            del self._peers[rank]
        if kind == "died":
            self._news = self._news or f"{self._members[rank]} died; look at its output, and at the kernel's log"
        elif kind == "failed":
            self._news = self._news or f"{self._members[rank]} ended with {text[0]}; look at its output"
        elif kind == "news":
            self._news = self._news or text[0]

    def _send(self, *message: str) -> None:
        """Send to all; who cannot be reached is found out when listening."""
        for connection in self._peers.values():
            with suppress(OSError):
                connection.send_bytes(json.dumps(message).encode())

    def _end(self) -> None:
        """Pass on the news, give the main thread a moment, and end the process."""
        self._send("news", self._news)
        self._judged.set()
        if self._is_ending.wait(min(self._interval, 5.0)):
            return  # an exception is ending it, and the line comes last
        self._logger.error(self._last_line())
        os._exit(1)


def _connect(logger: logging.Logger) -> tuple[list[_Member], dict[int, Connection]]:
    """Let every process find rank 0; to be called by all of them."""
    rank = get_rank()
    me: dict[str, Any] = dict(member=(rank, socket.gethostname(), os.getpid()))
    if rank == 0:
        token = secrets.token_hex(16)
        listener = Listener(("", 0), backlog=get_world_size(), authkey=token.encode())
        names = (os.environ.get("MASTER_ADDR"), socket.gethostname(), "127.0.0.1")
        me.update(token=token, port=listener.address[1], names=[name for name in names if name])
    everyone = all_gather_object(me)
    members = [_Member(*one["member"]) for one in everyone]
    peers: dict[int, Connection] = {}
    if rank == 0:
        _within(CONNECT_SECONDS, lambda: _accept(listener, peers, get_world_size() - 1))
        listener.close()
    else:
        _within(CONNECT_SECONDS, lambda: _call(everyone[0], rank, peers))
    peers = dict(peers)  # without what a thread that is too late finds
    reached = all_gather_object([*peers])
    alone = [str(member) for member in members[1:] if member.rank not in reached[0] or not reached[member.rank]]
    if alone:
        logger.warning(f"RankHeartbeatHook: rank 0 cannot be reached from {', '.join(alone)}; they are not watched")
    return members, peers


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Wait for some work no longer than this."""
    thread = Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)


def _accept(listener: Listener, peers: dict[int, Connection], count: int) -> None:
    end = time.monotonic() + CONNECT_SECONDS
    while len(peers) < count and time.monotonic() < end:
        with suppress(OSError, EOFError, ValueError, multiprocessing.AuthenticationError):  # of strangers
            connection = listener.accept()
            peers[int(connection.recv_bytes())] = connection


def _call(hub: dict, rank: int, peers: dict[int, Connection]) -> None:
    for name in hub["names"]:
        with suppress(OSError, EOFError, multiprocessing.AuthenticationError):  # another machine's name or service
            connection = Client((name, hub["port"]), authkey=hub["token"].encode())
            connection.send_bytes(str(rank).encode())
            peers[0] = connection
            return
