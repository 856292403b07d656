"""Drawn pictures: a file an image, a video a video."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mtadapt.apis.outputs.base import Output, remove_if_empty
from mtadapt.apis.sources import Frame
from mtadapt.errors import MTAdaptError
from mtadapt.structures import MultiTaskDataSample

#: Of cameras and videos that do not say theirs.
_FPS = 25.0
_QUALITY = 92


class Pictures(Output):
    """A folder with ``<name>.jpg`` for an image and ``<name>.mp4`` for a video or a camera.

    A picture is there as soon as it is drawn, a video when its last frame is.

    Args:
        path: the folder, which may exist where ``overwrite`` says so; then files of the same name are replaced.
        overwrite: see there.
    """

    needs_pictures = True

    def __init__(self, path: Path, overwrite: bool = False) -> None:
        super().__init__(path, overwrite)
        path.mkdir(parents=True, exist_ok=True)
        self._video: _Video | None = None

    def add(self, frame: Frame, sample: MultiTaskDataSample, picture: np.ndarray | None) -> None:
        """Write a picture."""
        if picture is None:
            return
        if self._video is not None and self._video.name != frame.video:
            self._close()
        if frame.video is None:
            path = self.path / f"{frame.name}.jpg"
            if not cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]):
                raise MTAdaptError(f"{path}: cannot be written; check the space on the disk and the rights")
            return
        if self._video is None:
            self._video = _Video(self.path, frame.video, frame.fps or _FPS, picture.shape)
        self._video.add(picture)

    def finish(self) -> list[Path]:
        """Complete the last video."""
        self._close()
        return [self.path]

    def abort(self) -> None:
        """Remove a video that is not complete; pictures stay."""
        if self._video is not None:
            self._video.abort()
            self._video = None
        remove_if_empty(self.path)

    def _close(self) -> None:
        if self._video is not None:
            self._video.finish()
            self._video = None


class _Video:
    """One MP4 file, of the size of its first picture."""

    def __init__(self, folder: Path, name: str, fps: float, shape: tuple[int, ...]) -> None:
        self.name, self.path = name, folder / f"{name}.mp4"
        # The writer tells the container from the suffix.
        self._unfinished = folder / f"{name}.unfinished.mp4"
        # Codecs want even sides.
        self._size = (shape[1] - shape[1] % 2, shape[0] - shape[0] % 2)
        codec = cv2.VideoWriter_fourcc(*"mp4v")  # type: ignore[attr-defined]
        self._writer: Any = cv2.VideoWriter(str(self._unfinished), codec, fps, self._size)
        if not self._writer.isOpened():
            raise MTAdaptError(
                f"{self.path}: OpenCV cannot write MP4 here; check the rights, or leave out the pictures (draw=False)"
            )

    def add(self, picture: np.ndarray) -> None:
        """Append a picture; one of another size is fitted into the first one's."""
        width, height = self._size
        if picture.shape[0] - height not in (0, 1) or picture.shape[1] - width not in (0, 1):
            picture = cv2.resize(picture, self._size, interpolation=cv2.INTER_AREA)
        self._writer.write(np.ascontiguousarray(picture[:height, :width, ::-1]))

    def finish(self) -> None:
        """Give the file its name."""
        self._writer.release()
        self._unfinished.replace(self.path)

    def abort(self) -> None:
        """Remove the file."""
        self._writer.release()
        self._unfinished.unlink(missing_ok=True)
