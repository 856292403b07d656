"""Frames of any inputs, one after the other."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.logging import print_log

from mtadapt.apis.sources.download import download, download_file
from mtadapt.apis.sources.entries import Entry, expand_inputs
from mtadapt.apis.sources.video import opened, video_frames, video_info
from mtadapt.datasets.transforms.loading import decode_image
from mtadapt.errors import MTAdaptError, first_line


class Frame(NamedTuple):
    """An image to predict.

    Attributes:
        name: of its outputs, without a suffix: the stem of the image, with the number for a frame of a video, and
            with folders where two files have one stem.
        image: BGR ``(H, W, 3)`` uint8.
        source: path, address, or words for a camera and an array.
        file_name: name of the file, for formats that name images so, with the folders of ``name``.
        video: name of the video or the camera, or None for an image.
        number: in the video, from 0, or None.
        fps: of the frames that are read from the video, or None.
    """

    name: str
    image: np.ndarray
    source: str
    file_name: str
    video: str | None = None
    number: int | None = None
    fps: float | None = None


class FrameReader:
    """Iterate over the frames of inputs; at any time one of them is held.

    Args:
        inputs: see :func:`~mtadapt.apis.sources.expand_inputs`.
        on_error: what happens to an image that cannot be read: ``raise``, or ``skip`` with a warning.
        stride: of videos and cameras every ``stride``-th frame is read.
        max_frames: of each video or camera, or None.
        max_download_mb: an address with more is refused.
        timeout: seconds that a server may be silent.

    Raises:
        MTAdaptError: for an input that does not exist, or an unknown setting.
    """

    def __init__(
        self,
        inputs: Any,
        on_error: str = "raise",
        stride: int = 1,
        max_frames: int | None = None,
        max_download_mb: float = 200,
        timeout: float = 20,
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise MTAdaptError(f"on_error={on_error!r}; known: raise, skip")
        for setting, value in (("stride", stride), ("max_frames", max_frames)):
            if value is not None and value < 1:
                raise MTAdaptError(f"{setting}={value}; write a number above 0")
        self.entries = expand_inputs(inputs)
        self.on_error, self.stride, self.max_frames = on_error, stride, max_frames
        self.max_download_mb, self.timeout = max_download_mb, timeout
        #: Images and videos that could not be read.
        self.skipped = 0

    @property
    def live(self) -> bool:
        """Whether a camera is among the inputs."""
        return any(entry.live for entry in self.entries)

    def total(self) -> int | None:
        """How many frames there are, as far as the headers of videos say; None where that is open."""
        count = 0
        for entry in self.entries:
            if entry.kind in ("image", "array"):
                count += 1
                continue
            if entry.live or entry.remote:
                return None
            try:
                with opened(entry.location, str(entry)) as capture:
                    frames = video_info(capture).frames
            except MTAdaptError:
                return None
            if frames is None:
                return None
            count += min(-(-frames // self.stride), self.max_frames or frames)
        return count

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames; an entry that cannot be read is skipped where ``on_error`` says so."""
        self.skipped = 0
        for entry in self.entries:
            yield from self._entry(entry)

    def _entry(self, entry: Entry) -> Iterator[Frame]:
        try:
            yield from self._image(entry) if entry.kind in ("image", "array") else self._video(entry)
        except MTAdaptError as error:
            if self.on_error == "raise":
                raise
            self.skipped += 1
            print_log(f"skipped: {error}", "current", logging.WARNING)

    def _image(self, entry: Entry) -> Iterator[Frame]:
        if entry.kind == "array":
            yield Frame(entry.name, check_image(entry.location), str(entry), f"{entry.name}.jpg")
            return
        if entry.remote:
            raw = b"".join(download(entry.location, self.max_download_mb, self.timeout))
        else:
            try:
                raw = Path(entry.location).read_bytes()
            except OSError as error:
                raise MTAdaptError(f"{entry}: cannot be read ({error.strerror or error})") from error
        try:
            remedy = "replace the file, or set on_error='skip' (--on-error skip)"
            image = decode_image(raw, str(entry), cv2.IMREAD_COLOR, remedy)
        except cv2.error as error:
            # OpenCV refuses more than 2^30 pixels so.
            raise MTAdaptError(f"{entry}: cannot be decoded ({first_line(error)})") from error
        yield Frame(entry.name, image, str(entry), _file_name(entry))

    def _video(self, entry: Entry) -> Iterator[Frame]:
        with tempfile.TemporaryDirectory() as folder:
            location = entry.location
            if entry.remote:
                location = str(Path(folder, Path(_file_name(entry)).name))
                download_file(entry.location, Path(location), self.max_download_mb, self.timeout)
            with opened(location, str(entry)) as capture:
                fps = video_info(capture).fps
                fps = None if fps is None else fps / self.stride
                frames = video_frames(capture, str(entry), self.stride, entry.live)
                for number, image in islice(frames, self.max_frames):
                    name = f"{entry.name}_{number:06d}"
                    yield Frame(name, check_image(image), str(entry), f"{name}.jpg", entry.name, number, fps)


def _file_name(entry: Entry) -> str:
    """Name with suffix and the folders of the entry's name; that of an address is without its query."""
    file = Path(str(entry.location).split("?")[0].split("#")[0] if entry.remote else str(entry.location)).name
    return (PurePosixPath(entry.name).parent / file).as_posix()


def check_image(image: np.ndarray) -> np.ndarray:
    """Return the image, a grey one with three channels.

    Raises:
        MTAdaptError: for something else than a uint8 image with one or three channels.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
            return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
        if image.ndim == 3 and image.shape[2] == 3:
            return image
    found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
    raise MTAdaptError(f"image: {found}; give a BGR array (H, W, 3) of uint8")
