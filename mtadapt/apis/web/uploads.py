"""Pictures from visitors: nothing is decoded before its kind and its size are known."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mtadapt.datasets.transforms.loading import decode_image
from mtadapt.errors import MTAdaptError

#: Formats by Pillow's names, whatever a file is called.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
_KNOWN = "JPEG, PNG, BMP, WebP or TIFF"
_MIN_SIDE = 16


@dataclass(frozen=True)
class UploadLimits:
    """What a picture may have.

    Attributes:
        megabytes: of the file.
        megapixels: of the picture, which a small file can have many of.
        longest_side: in pixels; larger pictures are made smaller before they are predicted.

    Raises:
        MTAdaptError: for a number of megabytes that is no limit.
    """

    megabytes: float = 20.0
    megapixels: float = 40.0
    longest_side: int = 1600

    def __post_init__(self) -> None:
        if not 0 < self.megabytes < float("inf"):
            raise MTAdaptError(f"--max-upload-mb {self.megabytes:g}: write a number above 0")


def read_upload(path: str | Path, limits: UploadLimits) -> np.ndarray:
    """Read a picture that somebody has sent.

    Args:
        path: the file; its name is what messages tell.
        limits: what it may have.

    Returns:
        BGR ``(H, W, 3)`` uint8, turned as its camera noted, no side longer than ``longest_side``.

    Raises:
        MTAdaptError: when the file is too large, no image of a known format, broken, or has too many or few pixels.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > limits.megabytes * 1e6:
        raise MTAdaptError(f"{path.name} has {size / 1e6:.1f} MB; up to {limits.megabytes:g} MB are taken")
    width, height = _declared_size(path)
    if width * height > limits.megapixels * 1e6:
        raise MTAdaptError(
            f"{path.name} has {width}x{height} pixels; up to {limits.megapixels:g} million are taken: make it smaller"
        )
    if min(width, height) < _MIN_SIDE:
        raise MTAdaptError(f"{path.name} has {width}x{height} pixels; at least {_MIN_SIDE}x{_MIN_SIDE} are needed")
    image = decode_image(path.read_bytes(), path.name, cv2.IMREAD_COLOR, "send another file")
    scale = limits.longest_side / max(image.shape[:2])
    if scale >= 1:
        return image
    smaller = [max(_MIN_SIDE, round(side * scale)) for side in image.shape[1::-1]]
    return cv2.resize(image, smaller, interpolation=cv2.INTER_AREA)


def _declared_size(path: Path) -> tuple[int, int]:
    """Width and height from the head of the file; the pixels are not decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                return image.size
    except UnidentifiedImageError as error:
        raise MTAdaptError(f"{path.name} is no image that can be read; send a {_KNOWN} file") from error
    except Image.DecompressionBombError as error:
        raise MTAdaptError(f"{path.name} has too many pixels; make it smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MTAdaptError(f"{path.name} is a broken image; send another file") from error
