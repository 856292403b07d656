"""What is taken as a picture, and what each refusal says."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from mtadapt.apis.web import UploadLimits, read_upload
from mtadapt.errors import MTAdaptError

LIMITS = UploadLimits(megabytes=0.2, megapixels=1.0, longest_side=400)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that declares a size and has no pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".tiff"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    smooth = cv2.resize(noise(4, 5), (100, 80), interpolation=cv2.INTER_CUBIC)
    path = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(path), smooth)
    found = read_upload(path, LIMITS).image
    assert found.shape == (80, 100, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - smooth).mean() < 4


def test_the_name_does_not_decide(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), noise(20, 30))
    (tmp_path / "a.png").rename(tmp_path / "a.txt")
    assert read_upload(tmp_path / "a.txt", LIMITS).image.shape == (20, 30, 3)


def test_large_pictures_are_made_smaller_and_their_size_is_kept(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((601, 1200, 3), np.uint8))
    found = read_upload(tmp_path / "a.jpg", LIMITS)
    assert found.image.shape == (200, 400, 3) and found.size == (1200, 601)
    # The longest that is taken keeps its shape.
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 500, 3), np.uint8))
    assert read_upload(tmp_path / "a.png", LIMITS).image.shape == (16, 400, 3)


def test_grey_alpha_sixteen_bits_and_turned_pictures(tmp_path: Path) -> None:
    assert cv2.imwrite(str(tmp_path / "grey.png"), np.full((20, 30), 90, np.uint8))
    assert cv2.imwrite(str(tmp_path / "deep.png"), np.full((20, 30, 3), 90 * 257, np.uint16))
    assert cv2.imwrite(str(tmp_path / "alpha.png"), np.full((20, 30, 4), 90, np.uint8))
    for name in ("grey", "deep", "alpha"):
        assert (read_upload(tmp_path / f"{name}.png", LIMITS).image == 90).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_upload(tmp_path / "turned.jpg", LIMITS).size == (20, 30)


def test_refusals(tmp_path: Path) -> None:
    def refused(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MTAdaptError) as caught:
            read_upload(tmp_path / name, LIMITS)
        return str(caught.value)

    formats = "send a JPEG, PNG, BMP, WebP or TIFF file"
    assert refused("a.png", b"some text") == f"a.png is no image that can be read; {formats}"
    assert refused("empty.jpg", b"") == f"empty.jpg is no image that can be read; {formats}"
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'/>"
    assert refused("a.svg", svg) == f"a.svg is no image that can be read; {formats}"
    assert refused("a.jpg", b"\xff" * 300_000) == "a.jpg has 0.3 MB; up to 0.2 MB are taken"
    assert refused("wide.png", png_header(2000, 600)) == (
        "wide.png has 2000x600 pixels; up to 1 million are taken: make it smaller"
    )
    assert "too many pixels" in refused("bomb.png", png_header(60_000, 60_000))
    assert refused("tiny.png", png_header(8, 600)).startswith("tiny.png has 8x600 pixels; at least 16x16")
    for width, height in ((20_000, 16), (16, 500)):
        assert refused("long.png", png_header(width, height)) == (
            f"long.png has {width}x{height} pixels; one side may be up to 25 times the other: cut it"
        )
    jpeg = cv2.imencode(".jpg", noise(60, 80))[1].tobytes()
    assert "cut.jpg: truncated" in refused("cut.jpg", jpeg[: len(jpeg) // 2])
    assert "head.png" in refused("head.png", png_header(100, 100))


@pytest.mark.parametrize("megabytes", [0, -1, float("nan"), float("inf")])
def test_a_limit_that_is_none(megabytes: float) -> None:
    with pytest.raises(MTAdaptError, match=r"--max-upload-mb .*: write a number above 0"):
        UploadLimits(megabytes=megabytes)


def test_a_declared_size_is_refused_before_anything_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cv2.imwrite(str(tmp_path / "a.png"), np.zeros((1100, 1000, 3), np.uint8))
    monkeypatch.setattr("mtadapt.apis.web.uploads.decode_image", lambda *_: pytest.fail("decoded"))
    with pytest.raises(MTAdaptError, match="1000x1100 pixels"):
        read_upload(tmp_path / "a.png", LIMITS)
