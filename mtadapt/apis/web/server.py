"""Serving the page on this machine."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from mtadapt.apis.web.predictor import Predictor
from mtadapt.apis.web.uploads import FORMATS, UploadLimits, read_upload
from mtadapt.errors import MTAdaptError

#: Sessions whose last picture is kept.
SESSIONS = 16
_EXAMPLES = 30
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
assert len(FORMATS) == 5  # those of the suffixes


def find_examples(folder: str | Path | None, limits: UploadLimits) -> list[Path]:
    """Return the pictures of a folder that can be examples, sorted, at most 30.

    Raises:
        MTAdaptError: when the folder is missing, or none of its first files can be read.
    """
    if folder is None:
        return []
    root = Path(folder)
    if not root.is_dir():
        raise MTAdaptError(f"--examples {folder}: no such folder")
    paths = sorted(path for path in root.iterdir() if path.suffix.lower() in _SUFFIXES)[:_EXAMPLES]
    if not paths:
        raise MTAdaptError(f"--examples {folder}: holds no picture ({', '.join(_SUFFIXES)})")
    for path in paths:
        read_upload(path, limits)
    return paths


def check_port(host: str, port: int) -> None:
    """Refuse an address that cannot be served on.

    Raises:
        MTAdaptError: when the port is in use or not allowed, or the host is not of this machine.
    """
    if not 1 <= port <= 65535:
        raise MTAdaptError(f"--port {port}: a port is a number from 1 to 65535")
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As the server does: a port that was just left may be taken again.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        remedy = "choose another --port" if not isinstance(error, socket.gaierror) else "choose another --host"
        raise MTAdaptError(f"{host}:{port} cannot be served on ({error.strerror or error}); {remedy}") from error


def check_extra() -> None:
    """Raise an :class:`MTAdaptError` if gradio is not installed."""
    if find_spec("gradio") is None:
        raise MTAdaptError("the web page needs the extra 'web': pip install 'mtadapt[web]'")


def serve(predictor: Predictor, examples: Sequence[Path], host: str, port: int, limits: UploadLimits) -> None:
    """Serve the page until the process is interrupted.

    Args:
        predictor: the model.
        examples: pictures to pick.
        host: address to bind to; ``127.0.0.1`` can be reached from this machine alone.
        port: port to bind to.
        limits: what an upload may have.

    Raises:
        MTAdaptError: when gradio is not installed or the address cannot be served on.
    """
    check_extra()
    check_port(host, port)
    with tempfile.TemporaryDirectory(prefix="mtadapt-web-") as folder:
        # Read when gradio is imported: nothing is reported to anyone, and uploads go when the server ends.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(Path(folder, "uploads")))
        # gradio asks its own address whether it is there; a proxy would be asked in its place.
        bypass = ",".join(filter(None, [os.environ.get("no_proxy", ""), "localhost", "127.0.0.1", host]))
        os.environ.update(no_proxy=bypass, NO_PROXY=bypass)
        from mtadapt.apis.web.page import CSS, THEME, Page

        for name in ("httpx", "httpcore", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.WARNING)
        files = Path(folder, "files")
        files.mkdir()
        blocks = Page(predictor, examples, limits, files).build()
        blocks.queue(max_size=32, default_concurrency_limit=1, api_open=False)
        shown = f"[{host}]" if ":" in host else host
        print(f"serving on http://{shown}:{port} (Ctrl+C ends it)", flush=True)
        blocks.launch(
            server_name=host,
            server_port=port,
            max_file_size=int(limits.megabytes * 1e6),
            allowed_paths=[str(path.resolve()) for path in examples],
            state_session_capacity=SESSIONS,
            share=False,
            ssr_mode=False,
            mcp_server=False,
            enable_monitoring=False,
            quiet=True,
            footer_links=[],
            theme=THEME,
            css=CSS,
        )
