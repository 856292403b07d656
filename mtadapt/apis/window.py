"""A window with the pictures."""

from __future__ import annotations

import os
import sys

import cv2
import numpy as np

from mtadapt.apis.sources import Frame
from mtadapt.errors import MTAdaptError, first_line

_REMEDY = "leave out show (--show), and look at the pictures in out_dir (--out-dir)"


def check_display() -> None:
    """Refuse to open a window where there is no display; OpenCV's window library would end the process.

    Raises:
        MTAdaptError: when there is none.
    """
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise MTAdaptError(f"show: there is no display (DISPLAY is not set); {_REMEDY}")


def show_picture(picture: np.ndarray, frame: Frame, wait_time: float) -> None:
    """Show a picture, that of a video without waiting.

    Args:
        picture: RGB ``(H, W, 3)`` uint8.
        frame: whose it is.
        wait_time: seconds, 0 until a key is pressed.

    Raises:
        MTAdaptError: when OpenCV has no windows.
    """
    try:
        cv2.imshow("mtadapt", picture[..., ::-1])
        cv2.waitKey(1 if frame.video is not None else int(1000 * wait_time))
    except cv2.error as error:
        raise MTAdaptError(
            f"show: this OpenCV has no windows ({first_line(error)}); install opencv-python, or {_REMEDY}"
        ) from error
