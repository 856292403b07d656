"""Fetch a file from an address, within limits of time and size."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from mtadapt.errors import MTAdaptError
from mtadapt.version import __version__

_CHUNK = 1 << 18


def download(address: str, limit_mb: float, timeout: float) -> Iterator[bytes]:
    """Yield the content of an address in pieces.

    Args:
        address: ``http`` or ``https``.
        limit_mb: size in megabytes (10^6 bytes) that is refused when it is exceeded.
        timeout: seconds without data, and ten times as many for the whole.

    Raises:
        MTAdaptError: when the server cannot be reached, answers with an error, is too slow, or sends too much.
    """
    limit = int(limit_mb * 1e6)
    ends = time.monotonic() + 10 * timeout
    try:
        with urlopen(Request(address, headers={"User-Agent": f"mtadapt/{__version__}"}), timeout=timeout) as answer:
            size = int(answer.headers.get("Content-Length") or 0)
            received = 0
            while True:
                if max(size, received) > limit:
                    raise MTAdaptError(
                        f"{address}: larger than {limit_mb:g} MB ({max(size, received) / 1e6:.1f} MB); raise "
                        "max_download_mb (--max-download-mb), or copy the file yourself"
                    )
                if time.monotonic() > ends:
                    raise MTAdaptError(f"{address}: not complete after {10 * timeout:g} s; raise timeout (--timeout)")
                piece = answer.read1(_CHUNK)
                if not piece:
                    break
                received += len(piece)
                yield piece
            if received < size:
                raise MTAdaptError(f"{address}: {received} of {size} bytes arrived; try again")
    except HTTPError as error:
        raise MTAdaptError(f"{address}: the server answers {error.code} {error.reason}; correct the address") from error
    except (URLError, http.client.HTTPException, OSError, ValueError) as error:
        if isinstance(error, MTAdaptError):
            raise
        reason = getattr(error, "reason", None) or error
        raise MTAdaptError(f"{address}: cannot be fetched ({reason}); check the address and the network") from error


def download_file(address: str, path: Path, limit_mb: float, timeout: float) -> None:
    """Write the content of an address to a file; see :func:`download`."""
    with path.open("wb") as file:
        for piece in download(address, limit_mb, timeout):
            file.write(piece)
