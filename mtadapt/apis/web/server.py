"""Serving the page on this machine."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mtadapt.apis.web.predictor import Predictor
from mtadapt.apis.web.uploads import IMAGE_KINDS, UploadLimits, read_upload
from mtadapt.errors import MTAdaptError

#: Sessions whose last picture is kept.
SESSIONS = 16
_EXAMPLES = 30
_SUFFIXES = tuple(suffix for suffixes in IMAGE_KINDS.values() for suffix in suffixes)


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


def open_port(host: str, port: int) -> socket.socket:
    """Bind to an address and listen; visitors wait until the page is served.

    Args:
        host: name or address of this machine.
        port: a number up to 65535; 0 for any that is free.

    Raises:
        MTAdaptError: when the port is in use or not allowed, or the host is not of this machine.
    """
    if not 0 <= port <= 65535:
        raise MTAdaptError(f"--port {port}: a port is a number up to 65535")
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind)
    except OSError as error:
        raise MTAdaptError(f"--host {host}: {error.strerror or error}; give an address of this machine") from error
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind(address)
        opened.listen(128)
    except OSError as error:
        opened.close()
        remedy = (
            "choose another with --port" if error.errno != errno.EADDRNOTAVAIL else "give an address of this machine"
        )
        raise MTAdaptError(f"{host}:{port} cannot be served on ({error.strerror or error}); {remedy}") from error
    return opened


def check_extra() -> None:
    """Raise an :class:`MTAdaptError` if gradio is not installed."""
    if find_spec("gradio") is None:
        raise MTAdaptError("the web page needs the extra 'web': pip install 'mtadapt[web]'")


def serve(predictor: Predictor, examples: Sequence[Path], opened: socket.socket, limits: UploadLimits) -> None:
    """Serve the page until the process is interrupted.

    Args:
        predictor: the model.
        examples: pictures to pick.
        opened: what :func:`open_port` gave.
        limits: what an upload may have.

    Raises:
        MTAdaptError: when gradio is not installed.
    """
    check_extra()
    with tempfile.TemporaryDirectory(prefix="mtadapt-web-") as folder, suppress(KeyboardInterrupt):
        # Read when gradio is imported: nothing is reported to anyone, and uploads go when the server ends.
        os.environ.update(GRADIO_ANALYTICS_ENABLED="False", GRADIO_TEMP_DIR=str(Path(folder, "uploads")))
        warnings.filterwarnings("ignore", module="gradio")
        import gradio
        import uvicorn
        from fastapi import FastAPI, Response

        from mtadapt.apis.web.page import CSS, THEME, Page

        files = Path(folder, "files")
        files.mkdir()
        blocks = Page(predictor, examples, limits, files).build()
        blocks.queue(max_size=32, default_concurrency_limit=1, api_open=False)
        blocks.state_session_capacity = SESSIONS
        # A mounted page does not set it, and gradio then takes any file of the server for an upload.
        blocks.has_launched = True
        # The server raises the signal again that ended it, and this folder has to go before the process does.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        host, port = opened.getsockname()[:2]
        # gradio has an /openapi.json of its own, which cannot be turned off; this route comes before it.
        outer = FastAPI(openapi_url=None)
        outer.add_route("/openapi.json", lambda _: Response(status_code=404))
        app = gradio.mount_gradio_app(
            outer,
            blocks,
            path="",
            server_name=host,
            server_port=port,
            footer_links=[],
            allowed_paths=[str(path.resolve()) for path in examples],
            show_error=False,
            max_file_size=limits.bytes,
            ssr_mode=False,
            enable_monitoring=False,
            mcp_server=False,
            theme=THEME,
            css=CSS,
        )
        shown = f"[{host}]" if ":" in host else host
        print(f"serving on http://{shown}:{port} (Ctrl+C ends it)", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        uvicorn.Server(config).run(sockets=[opened])
