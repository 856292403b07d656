"""Run the tools as a user does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*command: str | Path, cwd: Path, code: int = 0, timeout: int = 300) -> str:
    """Run a tool and return what it printed."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
    words = [str(word) for word in command]
    if words[0].endswith(".py"):
        words.insert(0, sys.executable)
    done = subprocess.run(words, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    printed = done.stdout + done.stderr
    assert done.returncode == code, printed[-4000:]
    return printed


def last_line(printed: str) -> str:
    return printed.strip().splitlines()[-1]


def numbers(printed: str, mode: str) -> dict[str, str]:
    """The metrics of MMEngine's own line, without the times."""
    line = [line for line in printed.splitlines() if f"Epoch({mode})" in line and "det/bbox_mAP" in line][-1]
    return dict(re.findall(r"(\w+/\w+): (\S+)", line))
