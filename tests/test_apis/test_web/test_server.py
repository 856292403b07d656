"""The address and the examples of the server."""

from __future__ import annotations

import socket
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtadapt.apis.web import UploadLimits
from mtadapt.apis.web.server import check_extra, find_examples, open_port
from mtadapt.errors import MTAdaptError

LIMITS = UploadLimits()


def test_a_port_in_use_is_named() -> None:
    with open_port("127.0.0.1", 0) as first:
        host, port = first.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(MTAdaptError, match=rf"127.0.0.1:{port} cannot be served on .*; choose another with --port"):
            open_port("127.0.0.1", port)
    with open_port("127.0.0.1", port), socket.create_connection(("127.0.0.1", port), timeout=5):
        pass


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 70000, "--port 70000: a port is a number up to 65535"),
        ("127.0.0.1", -1, "--port -1: a port is a number"),
        ("192.0.2.1", 8000, "192.0.2.1:8000 cannot be served on .*; give an address of this machine"),
        ("no.such.host.invalid", 8000, "--host no.such.host.invalid: "),
    ],
)
def test_addresses_that_are_none(host: str, port: int, message: str) -> None:
    with pytest.raises(MTAdaptError, match=message):
        open_port(host, port)


def test_examples(tmp_path: Path) -> None:
    assert find_examples(None, LIMITS) == []
    with pytest.raises(MTAdaptError, match="no such folder"):
        find_examples(tmp_path / "nothing", LIMITS)
    with pytest.raises(MTAdaptError, match="holds no picture"):
        find_examples(tmp_path, LIMITS)
    for number in reversed(range(35)):
        assert cv2.imwrite(str(tmp_path / f"{number:02d}.png"), np.zeros((20, 20, 3), np.uint8))
    (tmp_path / "notes.txt").write_text("not one")
    assert [path.stem for path in find_examples(tmp_path, LIMITS)] == [f"{number:02d}" for number in range(30)]
    (tmp_path / "03.png").write_text("broken")
    with pytest.raises(MTAdaptError, match=r"03.png is no image"):
        find_examples(tmp_path, LIMITS)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mtadapt.apis.web.server.find_spec", lambda name: None)
    with pytest.raises(MTAdaptError, match="needs the extra 'web'"):
        check_extra()
