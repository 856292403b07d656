"""Drawn pictures: a file an image, a video a video."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from mtadapt.apis.outputs.base import GrowingFolder, Output
from mtadapt.apis.outputs.video import VideoFile
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
        self._video: VideoFile | None = None
        self._video_name: str | None = None

    def add(self, frame: Frame, sample: MultiTaskDataSample, picture: np.ndarray | None) -> None:
        """Write a picture."""
        if picture is None:
            return
        if self._video_name != frame.video:
            self._close()
        if frame.video is None:
            path = self._folder.unfinished / f"{frame.name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not cv2.imwrite(str(path), picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]):
                raise MTAdaptError(f"{path}: cannot be written; check the space on the disk and the rights")
            return
        if self._video is None:
            path = self._folder.unfinished / f"{frame.video}.mp4"
            self._video = VideoFile(path, frame.fps or _FPS, picture.shape)
            self._video_name = frame.video
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
            self._video = self._video_name = None
