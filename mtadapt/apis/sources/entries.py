"""What the inputs of an inferencer stand for, before anything is opened."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import numpy as np

from mtadapt.apis.sources.names import distinct_names
from mtadapt.errors import MTAdaptError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".gif")
_STREAMS = ("rtsp", "rtmp", "rtsps", "udp")


class Entry(NamedTuple):
    """One image, video or camera.

    Attributes:
        kind: ``image``, ``video``, ``camera`` or ``array``.
        name: what outputs are named after, without a suffix; with folders, as ``a/0001``, where it would not be the
            only one otherwise.
        location: path, address, number of the camera, or the array itself.
        remote: whether it has to be downloaded.
    """

    kind: str
    name: str
    location: Any
    remote: bool = False

    @property
    def live(self) -> bool:
        """Whether it goes on until someone stops it."""
        return self.kind == "camera"

    def __str__(self) -> str:
        if self.kind == "camera":
            return f"camera {self.location}" if isinstance(self.location, int) else str(self.location)
        return f"array {self.name}" if self.kind == "array" else str(self.location)


def expand_inputs(inputs: Any) -> list[Entry]:
    """Find out what inputs are.

    Args:
        inputs: the path of an image, a video or a folder; a pattern such as ``frames/*.jpg`` (``**`` goes through
            folders); an address (``http``, ``https``, ``file``, or ``rtsp`` for a stream); the number of a camera; a
            BGR array ``(H, W, 3)`` of uint8; or a list of any of them.

    Returns:
        One entry an image, a video or a camera; those of a folder or a pattern are sorted by their paths. Files of
        one name in two folders have their folders in their names.

    Raises:
        MTAdaptError: when a path does not exist, a folder or a pattern has nothing to read, or it is something else.
    """
    items = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not items:
        raise MTAdaptError("inputs: nothing is given; name an image, a folder, a video, an address or a camera")
    entries: list[Entry] = []
    for item in items:
        entries.extend(_expand(item, len(entries)))
    return distinct_names(entries)


def _expand(item: Any, number: int) -> list[Entry]:
    if isinstance(item, np.ndarray):
        return [Entry("array", f"{number:06d}", item)]
    if isinstance(item, (int, np.integer)) and not isinstance(item, bool):
        return [Entry("camera", f"camera{int(item)}", int(item))]
    if not isinstance(item, (str, os.PathLike)):
        raise MTAdaptError(
            f"input {item!r} ({type(item).__name__}): give a path, a pattern, an address, the number of a camera, or "
            "a BGR array"
        )
    text = os.fspath(item)
    if "://" in text:
        return [_address(text)]
    path = Path(text)
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return [_file(text)]
    if glob.has_magic(text):
        found = sorted(each for each in glob.glob(text, recursive=True) if Path(each).is_file())
        if not found:
            raise MTAdaptError(f"{text}: no file matches the pattern; correct it, or quote it for the shell")
        return [_file(each) for each in found]
    raise MTAdaptError(f"{text}: no such file, folder or pattern; correct the path (a camera is a number: 0)")


def _folder(path: Path) -> list[Entry]:
    found = sorted(str(each) for each in path.iterdir() if each.suffix.lower() in (*IMAGES, *VIDEOS))
    if not found:
        raise MTAdaptError(
            f"{path}: a folder without images or videos ({', '.join(each[1:] for each in IMAGES[:5])}, "
            f"{', '.join(each[1:] for each in VIDEOS[:4])}, ...); for folders in it give '{path}/**/*.jpg'"
        )
    return [_file(each) for each in found]


def _file(path: str) -> Entry:
    suffix = Path(path).suffix.lower()
    return Entry("video" if suffix in VIDEOS else "image", Path(path).stem, path)


def _address(text: str) -> Entry:
    try:
        parts = urlsplit(text)
        host = parts.hostname
    except ValueError as error:
        raise MTAdaptError(f"{text}: no address that can be read ({error})") from error
    path = unquote(parts.path)
    if parts.scheme == "file":
        if not Path(url2pathname(parts.path)).is_file():
            raise MTAdaptError(f"{text}: no such file")
        return _file(url2pathname(parts.path))
    if parts.scheme in _STREAMS and host:
        return Entry("camera", f"{host}{path}".replace("/", "_").replace(":", "_"), text)
    if parts.scheme in ("http", "https") and host:
        kind = "video" if Path(path).suffix.lower() in VIDEOS else "image"
        return Entry(kind, Path(path).stem or host, text, remote=True)
    raise MTAdaptError(f"{text}: no address that can be read; write http://, https://, file:// or rtsp://")
