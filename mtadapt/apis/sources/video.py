"""Frames of videos and cameras, one at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np
from mmengine.logging import print_log

from mtadapt.errors import MTAdaptError

#: Containers count their frames from the duration, which is not exact.
_TOLERATED = 0.9


class VideoInfo(NamedTuple):
    """What a video's header says.

    Attributes:
        frames: how many, or None where it does not say.
        fps: frames a second, or None.
    """

    frames: int | None
    fps: float | None


@contextmanager
def opened(location: str | int, what: str) -> Iterator[Any]:
    """Open a video or a camera.

    Args:
        location: path or address, or the number of a camera.
        what: what messages call it.

    Raises:
        MTAdaptError: when it cannot be opened.
    """
    before = cv2.getLogLevel()
    # Every backend that fails would write a page of its own.
    cv2.setLogLevel(0)
    try:
        capture = cv2.VideoCapture(location)
    finally:
        cv2.setLogLevel(before)
    try:
        if not capture.isOpened():
            remedy = (
                "check the number, and that no other program uses it"
                if isinstance(location, int)
                else "the file is damaged, or of a format that OpenCV does not read; convert it to MP4"
            )
            raise MTAdaptError(f"{what}: cannot be opened; {remedy}")
        yield capture
    finally:
        capture.release()


def video_info(capture: Any) -> VideoInfo:
    """Read the header of an opened video."""
    frames, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
    return VideoInfo(int(frames) if 0 < frames < 1e9 else None, float(fps) if 0 < fps < 1e4 else None)


def video_frames(capture: Any, what: str, stride: int, live: bool) -> Iterator[tuple[int, np.ndarray]]:
    """Yield numbers and images BGR ``(H, W, 3)`` of every ``stride``-th frame.

    Args:
        capture: an opened video or camera.
        what: what messages call it.
        stride: frames between two that are decoded.
        live: whether it is a camera.

    Raises:
        MTAdaptError: when not a single frame can be decoded.
    """
    number = 0
    while True:
        if number % stride:
            if not capture.grab():
                break
        else:
            there, image = capture.read()
            if not there or image is None:
                break
            yield number, image
        number += 1
    if not number:
        raise MTAdaptError(f"{what}: no frame can be decoded; the file is damaged, or the codec is not known here")
    expected = video_info(capture).frames
    if live:
        print_log(f"{what}: gives no picture any more after {number} frames", "current", logging.WARNING)
    elif expected is not None and number < _TOLERATED * expected:
        print_log(
            f"{what}: {number} of {expected} frames could be decoded; the end is damaged", "current", logging.WARNING
        )
