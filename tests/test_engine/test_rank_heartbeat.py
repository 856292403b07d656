"""Ranks that die, stop or fail, in real processes without a launcher that would end the others."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.data import Dataset

from mtadapt.engine.hooks.rank_heartbeat_hook import RankHeartbeatHook
from mtadapt.errors import MTAdaptError
from tests.command_line import ROOT

INTERVAL, TIMEOUT = 0.5, 3.0


class Images(Dataset):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.full((3,), float(index)))


class Linear(BaseModel):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, inputs: list[Tensor], mode: str = "loss") -> dict[str, Tensor]:
        return dict(loss=self.linear(torch.stack(inputs)).square().mean())


class Script(Hook):
    """What the processes do at the fourth iteration, behind which they are ready for the worst.

    ``wait``: rank 0 sleeps, as in a call that no error wakes; ``fail``: rank 1 raises; ``slow``: rank 1 is busy for
    longer than the timeout, and then all end.
    """

    def __init__(self, folder: Path, scenario: str) -> None:
        self.folder, self.scenario = folder, scenario

    def after_train_iter(self, runner: Runner, batch_idx: int, **kwargs: object) -> None:
        if batch_idx != 3:
            return
        (self.folder / f"ready{runner.rank}").touch()
        if self.scenario == "wait" and runner.rank == 0:
            time.sleep(600)
        elif self.scenario == "fail" and runner.rank == 1:
            raise ValueError("no such image\nat all")
        elif self.scenario == "slow":
            time.sleep(2 * TIMEOUT * runner.rank)
            runner.train_loop.stop_training = True


def main(folder: Path, scenario: str) -> None:
    """One rank."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    runner = Runner(
        model=Linear(),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=Images(),
            batch_size=2,
            num_workers=1,
            sampler=dict(type="InfiniteSampler"),
            collate_fn=dict(type="pseudo_collate"),
        ),
        train_cfg=dict(by_epoch=False, max_iters=10**9),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.0)),
        default_hooks=dict(checkpoint=None),
        custom_hooks=[RankHeartbeatHook(INTERVAL, TIMEOUT), Script(folder, scenario)],
        cfg=dict(model_wrapper_cfg=dict(type="MMDistributedDataParallel", device_ids=None, broadcast_buffers=False)),
        launcher="pytorch",
    )
    runner.train()
    assert not [thread for thread in threading.enumerate() if thread.name == "rank-heartbeat"]
    dist.destroy_process_group()


class Ranks:
    """The processes of a run, their standard error in files."""

    def __init__(self, folder: Path, count: int, scenario: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.folder = folder
        self.processes = []
        for rank in range(count):
            env = dict(
                RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(count), MASTER_PORT=port, OMP_NUM_THREADS="1"
            )
            with open(folder / f"{rank}.txt", "w") as output:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.test_engine.test_rank_heartbeat", folder, scenario],
                        cwd=ROOT,
                        env={**os.environ, **env, "MASTER_ADDR": "127.0.0.1"},
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )
        self.wait(lambda: all((folder / f"ready{rank}").exists() for rank in range(count)), 120)

    def wait(self, condition: Callable[[], object], seconds: float) -> float:
        """Wait for the condition, and return how long it took."""
        start = time.monotonic()
        while not condition():
            if time.monotonic() > start + seconds:
                pytest.fail("\n".join(self.output(rank)[-3000:] for rank in range(len(self.processes))))
            time.sleep(0.05)
        return time.monotonic() - start

    def end(self, rank: int, seconds: float) -> float:
        return self.wait(lambda: self.processes[rank].poll() is not None, seconds)

    def output(self, rank: int) -> str:
        return (self.folder / f"{rank}.txt").read_text()

    def name(self, rank: int) -> str:
        return f"rank {rank} (host {socket.gethostname()}, process {self.processes[rank].pid})"

    def last_line(self, rank: int) -> str:
        """The last line, without MMEngine's time and place."""
        return re.sub(r"^.* - ERROR - (\S+ - \S+ - \d+ - )?", "", self.output(rank).strip().splitlines()[-1])

    def children(self, rank: int) -> set[int]:
        tasks = Path(f"/proc/{self.processes[rank].pid}/task").glob("*/children")
        return {int(pid) for task in tasks for pid in task.read_text().split()}


@contextmanager
def ranks(folder: Path, count: int, scenario: str = "train") -> Iterator[Ranks]:
    started = Ranks(folder, count, scenario)
    try:
        yield started
    finally:
        for process in started.processes:
            process.kill()
            process.wait()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("victim", "scenario"),
    [
        pytest.param(1, "wait", id="rank 0 waits"),
        pytest.param(1, "train", id="rank 0 trains", marks=pytest.mark.slow),
        pytest.param(0, "train", id="rank 0 dies", marks=pytest.mark.slow),
    ],
)
def test_killed_rank(tmp_path: Path, victim: int, scenario: str):
    with ranks(tmp_path, 2, scenario) as run:
        survivor = 1 - victim
        workers = run.children(survivor)
        assert len(workers) == 1
        run.processes[victim].send_signal(signal.SIGKILL)
        run.end(survivor, 15)
        assert run.processes[survivor].returncode == 1
        assert run.last_line(survivor) == (
            f"rank {survivor} ends because {run.name(victim)} died; look at its output, and at the kernel's log"
        )
        run.wait(lambda: not any(is_running(pid) for pid in workers), 30)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, 0])
def test_stopped_rank(tmp_path: Path, victim: int):
    """The other one waits inside a collective call."""
    with ranks(tmp_path, 2) as run:
        survivor = 1 - victim
        run.processes[victim].send_signal(signal.SIGSTOP)
        took = run.end(survivor, 15)
        assert run.processes[survivor].returncode == 1 and took > TIMEOUT - INTERVAL
        why = "it is stopped, or its machine or the network is down"
        news = f"ends because {run.name(victim)} has given no sign of life for 3 s: {why}"
        assert run.last_line(survivor) == f"rank {survivor} {news}"
        # Awake again, it ends too, by the news that were sent to it.
        run.processes[victim].send_signal(signal.SIGCONT)
        run.end(victim, 15)
        assert f"rank {victim} {news}" in run.output(victim)


@pytest.mark.slow
def test_rank_0_tells_the_others(tmp_path: Path):
    with ranks(tmp_path, 3, "wait") as run:
        run.processes[2].send_signal(signal.SIGSTOP)
        for survivor in (0, 1):
            run.end(survivor, 15)
            assert run.processes[survivor].returncode == 1
            assert run.last_line(survivor).startswith(f"rank {survivor} ends because {run.name(2)} has given no sign")


@pytest.mark.slow
def test_exception_of_a_rank(tmp_path: Path):
    with ranks(tmp_path, 2, "fail") as run:
        for rank in range(2):
            run.end(rank, 15)
            assert run.processes[rank].returncode == 1
        assert run.last_line(0) == (
            f"rank 0 ends because {run.name(1)} ended with ValueError: no such image; look at its output"
        )
        assert "ValueError: no such image" in run.output(1) and "ends because" not in run.output(1)


@pytest.mark.slow
def test_slow_rank_is_no_alarm(tmp_path: Path):
    with ranks(tmp_path, 2, "slow") as run:
        for rank in range(2):
            run.end(rank, 30)
            assert run.processes[rank].returncode == 0, run.output(rank)
            assert "ends because" not in run.output(rank) and "not watched" not in run.output(rank)


def test_one_process_has_no_thread():
    hook = RankHeartbeatHook()
    before = threading.active_count()
    hook.before_run(None)
    assert threading.active_count() == before and hook._heart is None
    hook.after_run(None)


@pytest.mark.parametrize(("interval", "timeout"), [(0, 40), (-1, 40), (5, 9), (float("nan"), 40)])
def test_times_that_make_no_sense_are_refused(interval: float, timeout: float):
    with pytest.raises(MTAdaptError, match=rf"RankHeartbeatHook: interval={interval}, timeout={timeout}; the interval"):
        RankHeartbeatHook(interval, timeout)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
