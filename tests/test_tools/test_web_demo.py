"""The command of the web page, where it ends before it serves; the page itself is in tests/test_apis/test_web."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.command_line import ROOT, last_line, run

TOOL = ROOT / "tools/web_demo.py"
CONFIG = ROOT / "configs/mt_synthetic_lv.py"


def test_a_port_in_use_is_told_before_the_model_is_loaded(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        printed = run(TOOL, CONFIG, "nothing.pth", "--port", str(port), cwd=tmp_path, code=2)
    message = f"error: 127.0.0.1:{port} cannot be served on (Address already in use); choose another with --port"
    assert last_line(printed) == message


def test_a_missing_checkpoint(tmp_path: Path) -> None:
    printed = run(TOOL, CONFIG, "nothing.pth", "--port", "0", cwd=tmp_path, code=2)
    assert last_line(printed).startswith("error: nothing.pth: ")
