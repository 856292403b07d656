"""Annotated videos: H.264 with PyAV, else what OpenCV can write."""

from __future__ import annotations

from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mtadapt.errors import MTAdaptError


class VideoFile:
    """One MP4 file, of the size of its first picture.

    With PyAV (extra ``video``) it is H.264, which browsers and chats play. Without it, it is MPEG-4 part 2 by OpenCV,
    whose wheels have no encoder of H.264.

    Args:
        path: of the file.
        fps: pictures a second.
        shape: of the first picture, ``(H, W, 3)``.

    Raises:
        MTAdaptError: when the file cannot be written.
    """

    def __init__(self, path: Path, fps: float, shape: tuple[int, ...]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Codecs want even sides.
        self._size = (shape[1] - shape[1] % 2, shape[0] - shape[0] % 2)
        encoder: type[_PyAV] | type[_OpenCV] = _PyAV if find_spec("av") else _OpenCV
        self._encoder = encoder(path, fps, self._size)

    def add(self, picture: np.ndarray) -> None:
        """Append a picture, RGB; one of another size is fitted into the first one's."""
        width, height = self._size
        if picture.shape[0] - height not in (0, 1) or picture.shape[1] - width not in (0, 1):
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._encoder.write(np.ascontiguousarray(picture[:height, :width]))

    def close(self) -> None:
        """Complete the file."""
        self._encoder.close()


class _PyAV:
    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        import av

        self._av = av
        self._container: Any = av.open(str(path), "w", options=dict(movflags="faststart"))
        # Rates such as 30000/1001, and the chroma that every player knows.
        rate = Fraction(fps).limit_denominator(1001)
        self._stream: Any = self._container.add_stream("h264", rate=rate, options=dict(crf="20", preset="veryfast"))
        self._stream.width, self._stream.height = size
        self._stream.pix_fmt = "yuv420p"
        try:
            # Here the file is opened.
            self._container.start_encoding()
        except OSError as error:
            raise MTAdaptError(_cannot_write(path, error.strerror or error)) from error

    def write(self, picture: np.ndarray) -> None:
        self._container.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(picture, format="rgb24")))

    def close(self) -> None:
        self._container.mux(self._stream.encode(None))
        self._container.close()


class _OpenCV:
    def __init__(self, path: Path, fps: float, size: tuple[int, int]) -> None:
        codec = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
        self._writer: Any = cv2.VideoWriter(str(path), codec, fps, size)
        if not self._writer.isOpened():
            raise MTAdaptError(_cannot_write(path, "OpenCV cannot write MP4 here"))

    def write(self, picture: np.ndarray) -> None:
        self._writer.write(np.ascontiguousarray(picture[..., ::-1]))

    def close(self) -> None:
        self._writer.release()


def _cannot_write(path: Path, reason: object) -> str:
    return f"{path}: cannot be written ({reason}); check the rights, or set draw=False (--no-pictures)"
