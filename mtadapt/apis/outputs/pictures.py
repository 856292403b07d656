"""Drawn pictures: a file an image, a video a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mtadapt.apis.outputs.base import GrowingFolder, Output
from mtadapt.apis.sources import Frame
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample

#: Of cameras and videos that do not say theirs.
_FPS = 25.0
_QUALITY = 92


class Pictures(Output):
    """A folder with ``<name>.jpg`` for an image and ``<name>.mp4`` for a video or a camera.

    Args:
        path: the folder.
        overwrite: whether a folder that is there is replaced.
    """

    needs_pictures = True

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        super().__init__(path, overwrite)
        self._folder = GrowingFolder(path)
        self._video: _Video | None = None

    def add(self, frame: Frame, sample: MultiTaskDataSample, picture: np.ndarray | None) -> None:
        """Write a picture."""
        if picture is None:
            return
        if self._video is not None and self._video.name != frame.video:
            self._close()
        if frame.video is None:
            path = self._folder.unfinished / f"{frame.name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]):
                raise MTAdaptError(f"{path}: cannot be written; check the space on the disk and the rights")
            return
        if self._video is None:
            self._video = _Video(self._folder.unfinished, frame.video, frame.fps or _FPS, picture.shape)
        self._video.add(picture)

    def finish(self) -> list[Path]:
        """Complete the last video and give the folder its name."""
        self._close()
        return [self._folder.finish()]

    def abort(self) -> None:
        """Remove the folder."""
        self._close()
        self._folder.abort()

    def _close(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None


class _Video:
    """One MP4 file, of the size of its first picture."""

    def __init__(self, folder: Path, name: str, fps: float, shape: tuple[int, ...]) -> None:
        self.name = name
        path = folder / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Codecs want even sides.
        self._size = (shape[1] - shape[1] % 2, shape[0] - shape[0] % 2)
        codec = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
        self._writer: Any = cv2.VideoWriter(str(path), codec, fps, self._size)
        if not self._writer.isOpened():
            raise MTAdaptError(
                f"{path}: OpenCV cannot write MP4 here; check the rights, or set draw=False (--no-pictures)"
            )

    def add(self, picture: np.ndarray) -> None:
        """Append a picture; one of another size is fitted into the first one's."""
        width, height = self._size
        if picture.shape[0] - height not in (0, 1) or picture.shape[1] - width not in (0, 1):
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))

    def close(self) -> None:
        """Complete the file."""
        self._writer.release()
