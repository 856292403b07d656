"""Pictures from visitors: nothing is decoded before its kind and its size are known."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from mtadapt.datasets.transforms.loading import decode_image
from mtadapt.errors import MTAdaptError

#: Pillow's names of the kinds of images that are taken, whatever a file is called, and the suffixes they mostly have.
IMAGE_KINDS = dict(JPEG=(".jpg", ".jpeg"), PNG=(".png",), BMP=(".bmp",), WEBP=(".webp",), TIFF=(".tif", ".tiff"))
_KNOWN = "JPEG, PNG, BMP, WebP or TIFF"
_MIN_SIDE = 16


@dataclass(frozen=True)
class UploadLimits:
    """What a picture may have.

    Attributes:
        megabytes: of the file, of 1024 x 1024 bytes as gradio counts them.
        megapixels: of the picture, which a small file can have many of.
        longest_side: in pixels; of larger pictures a smaller copy is predicted and shown.

    Raises:
        MTAdaptError: for a number of megabytes that is no limit.
    """

    megabytes: float = 20.0
    megapixels: float = 40.0
    longest_side: int = 1600

    def __post_init__(self) -> None:
        if not 0 < self.megabytes < float("inf"):
            raise MTAdaptError(f"--max-upload-mb {self.megabytes:g}: write a number above 0")

    @property
    def bytes(self) -> int:
        """Of the file."""
        return int(self.megabytes * 2**20)


class Upload(NamedTuple):
    """A picture that somebody has sent.

    Attributes:
        image: BGR ``(H, W, 3)`` uint8, turned as its camera noted, no side longer than ``longest_side``.
        size: width and height of the file's picture in pixels, turned likewise.
    """

    image: np.ndarray
    size: tuple[int, int]


def read_upload(path: str | Path, limits: UploadLimits) -> Upload:
    """Read a picture that somebody has sent.

    Args:
        path: the file; its name is what messages tell.
        limits: what it may have.

    Raises:
        MTAdaptError: when the file is too large, no image of a known format, broken, has too many or few pixels, or is
            so long that a smaller copy would be distorted.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > limits.bytes:
        raise MTAdaptError(f"{path.name} has {size / 2**20:.1f} MB; up to {limits.megabytes:g} MB are taken")
    width, height = _declared_size(path)
    if width * height > limits.megapixels * 1e6:
        raise MTAdaptError(
            f"{path.name} has {width}x{height} pixels; up to {limits.megapixels:g} million are taken: make it smaller"
        )
    if min(width, height) < _MIN_SIDE:
        raise MTAdaptError(f"{path.name} has {width}x{height} pixels; at least {_MIN_SIDE}x{_MIN_SIDE} are needed")
    longest = limits.longest_side // _MIN_SIDE
    if max(width, height) > longest * min(width, height):
        raise MTAdaptError(
            f"{path.name} has {width}x{height} pixels; one side may be up to {longest} times the other: cut it"
        )
    image = decode_image(path.read_bytes(), path.name, cv2.IMREAD_COLOR, "send another file")
    height, width = image.shape[:2]
    scale = limits.longest_side / max(width, height)
    if scale < 1:
        image = cv2.resize(image, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
    return Upload(image, (width, height))


def _declared_size(path: Path) -> tuple[int, int]:
    """Width and height from the head of the file; the pixels are not decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=tuple(IMAGE_KINDS)) as image:
                return image.size
    except UnidentifiedImageError as error:
        raise MTAdaptError(f"{path.name} is no image that can be read; send a {_KNOWN} file") from error
    except Image.DecompressionBombError as error:
        raise MTAdaptError(f"{path.name} has too many pixels; make it smaller") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MTAdaptError(f"{path.name} is a broken image; send another file") from error
