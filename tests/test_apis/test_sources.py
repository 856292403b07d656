"""Frames of every kind of input: their names, numbers and pixels, and what is refused."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtadapt.apis.sources import FrameReader, check_names, expand_inputs, read_ahead
from mtadapt.errors import MTAdaptError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Ten frames, each of one grey that tells its number, 5 a second."""
    path = tmp_path / "drive.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 24))
    for number in range(10):
        writer.write(np.full((24, 32, 3), 20 * number, np.uint8))
    writer.release()
    return path


class _Handler(BaseHTTPRequestHandler):
    content: bytes = b""

    def do_GET(self) -> None:
        if self.path.startswith("/silent"):
            time.sleep(3)
            return
        self.send_response(404 if self.path.startswith("/none") else 200)
        if "unknown-length" not in self.path:
            self.send_header("Content-Length", str(len(self.content) + (100 if "cut" in self.path else 0)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    made = HTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def greys(frames) -> list[int]:
    return [round(float(frame.image.mean()) / 20) for frame in frames]


def test_a_folder_a_pattern_and_a_list(tmp_path: Path, image: Path, video: Path):
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "deep").mkdir()
    cv2.imwrite(str(tmp_path / "deep" / "b.jpg"), cv2.imread(str(image)))
    assert [(each.kind, each.name) for each in expand_inputs(tmp_path)] == [("video", "drive"), ("image", "street")]
    assert [each.name for each in expand_inputs(f"{tmp_path}/**/*.*g")] == ["b", "street"]
    entries = expand_inputs([str(image), np.zeros((4, 4, 3), np.uint8), 2, video.as_uri(), "rtsp://cam/one"])
    assert [(each.kind, each.name) for each in entries] == [
        ("image", "street"),
        ("array", "000001"),
        ("camera", "camera2"),
        ("video", "drive"),
        ("camera", "cam_one"),
    ]
    assert [str(each) for each in entries[1:3]] == ["array 000001", "camera 2"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.jpg", "none.jpg: no such file, folder or pattern"),
        ("none*.jpg", "no file matches the pattern"),
        ("ftp://a/b.jpg", "no address that can be read"),
        ("http://[a/b.jpg", "no address that can be read"),
        ("file:///none.jpg", "no such file"),
        (3.5, r"input 3.5 \(float\): give a path"),
        (True, r"input True \(bool\)"),
        ([], "nothing is given"),
    ],
)
def test_inputs_that_are_none(given: object, message: str):
    with pytest.raises(MTAdaptError, match=message):
        expand_inputs(given)


def test_an_empty_folder_and_equal_names(tmp_path: Path, image: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(MTAdaptError, match="a folder without images or videos"):
        expand_inputs(tmp_path / "empty")
    other = tmp_path / "street.jpg"
    cv2.imwrite(str(other), cv2.imread(str(image)))
    with pytest.raises(MTAdaptError, match=r"street.png and .*street.jpg: their outputs would both be named 'street'"):
        check_names(expand_inputs([image, other]))


def test_files_of_one_name_keep_their_folders(tmp_path: Path, image: Path, video: Path):
    pixels = cv2.imread(str(image))
    for name in ("a/0001.png", "b/0001.png", "b/deep/0002.png"):
        (tmp_path / "frames" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "frames" / name), pixels)
    for name in "ab":
        shutil.copy(video, tmp_path / "frames" / name / "drive.avi")
    reader = FrameReader([f"{tmp_path}/frames/**/*.*", image], max_frames=1)
    check_names(reader.entries)
    assert [entry.name for entry in reader.entries] == [
        "a/0001", "a/drive", "b/0001", "b/deep/0002", "b/drive", "street",
    ]  # fmt: skip
    frames = list(reader)
    assert [(frame.name, frame.file_name, frame.video) for frame in frames[:2]] == [
        ("a/0001", "a/0001.png", None),
        ("a/drive_000000", "a/drive_000000.jpg", "a/drive"),
    ]
    with pytest.raises(MTAdaptError, match=r"0001.png and .*0001.png: both would be '0001' in BDD100K's submission"):
        check_names(reader.entries, flat=True)
    check_names(expand_inputs(f"{tmp_path}/frames/b/**/*.png"), flat=True)
    # One folder alone needs no folders in its names.
    assert [entry.name for entry in expand_inputs(f"{tmp_path}/frames/b/**/*.png")] == ["0001", "0002"]
    with pytest.raises(MTAdaptError, match="would both be named 'street'"):
        check_names(expand_inputs([image, image]))


def test_an_image_named_like_a_frame_of_a_video(tmp_path: Path, image: Path, video: Path):
    frame = tmp_path / "drive_000000.jpg"
    cv2.imwrite(str(frame), cv2.imread(str(image)))
    with pytest.raises(MTAdaptError, match=r"drive.avi and .*drive_000000.jpg: .* both be named 'drive_000000'"):
        check_names(expand_inputs([frame, video]))
    (tmp_path / "other").mkdir()
    apart = expand_inputs([video, shutil.move(frame, tmp_path / "other")])
    check_names(apart)
    assert [entry.name for entry in apart] == ["drive", "other/drive_000000"]
    with pytest.raises(MTAdaptError, match="which has no folders"):
        check_names(apart, flat=True)


def test_frames_of_a_video(video: Path):
    frames = list(FrameReader(video))
    assert greys(frames) == list(range(10))
    assert [frame.number for frame in frames] == list(range(10))
    assert (frames[3].name, frames[3].video, frames[3].fps) == ("drive_000003", "drive", 5)
    every_third = FrameReader(video, stride=3)
    assert every_third.total() == 4
    found = list(every_third)
    assert greys(found) == [frame.number for frame in found] == [0, 3, 6, 9]
    assert found[0].fps == pytest.approx(5 / 3)
    few = FrameReader(video, stride=2, max_frames=2)
    assert few.total() == 2 and greys(few) == [0, 2]


def test_damaged_videos(tmp_path: Path, video: Path, caplog: pytest.LogCaptureFixture):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all" * 100)
    with pytest.raises(MTAdaptError, match=r"broken.mp4: cannot be opened; the file is damaged"):
        list(FrameReader(broken))
    with pytest.raises(MTAdaptError, match="camera 77: cannot be opened; check the number"):
        list(FrameReader(77))
    reader = FrameReader([broken, video], on_error="skip")
    assert len(list(reader)) == 10 and reader.skipped == 1


def test_addresses(server: str, image: Path):
    _Handler.content = image.read_bytes()
    (frame,) = FrameReader(f"{server}/pictures/street.png?size=1")
    assert np.array_equal(frame.image, cv2.imread(str(image)))
    assert (frame.name, frame.file_name) == ("street", "street.png")
    for path, message in (
        ("none.png", "the server answers 404"),
        ("cut.png", "bytes arrived; try again|cannot be fetched"),
        ("silent.png", r"cannot be fetched \(timed out\)"),
    ):
        with pytest.raises(MTAdaptError, match=message):
            list(FrameReader(f"{server}/{path}", timeout=0.5))
    for path in ("street.png", "unknown-length.png"):
        with pytest.raises(MTAdaptError, match=r"larger than 0.001 MB .*; raise max_download_mb \(--max-download-mb\)"):
            list(FrameReader(f"{server}/{path}", max_download_mb=0.001))
    _Handler.content = b"<html>no image</html>"
    with pytest.raises(MTAdaptError, match=r"street\.png: truncated or not an image"):
        list(FrameReader(f"{server}/street.png"))
    with pytest.raises(MTAdaptError, match="cannot be fetched"):
        list(FrameReader("http://127.0.0.1:9/street.png", timeout=2))


def test_a_video_at_an_address(server: str, video: Path):
    _Handler.content = video.read_bytes()
    reader = FrameReader(f"{server}/drive.avi", stride=5)
    assert reader.total() is None
    assert greys(reader) == [0, 5]


def test_grey_and_other_arrays(tmp_path: Path):
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    (frame,) = FrameReader(grey)
    assert frame.image.shape == (6, 8, 3) and (frame.image == grey[..., None]).all()
    for wrong in (np.zeros((6, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8), np.zeros((6, 8, 3))):
        with pytest.raises(MTAdaptError, match="give a BGR array"):
            list(FrameReader(wrong))


def test_reading_ahead_is_bounded_and_keeps_the_order():
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            made.append(number)
            yield number

    ahead = read_ahead(items(), 3)
    assert next(ahead) == 0
    time.sleep(0.5)
    # One is in the consumer's hands, three wait, one is in the hands of the thread.
    assert len(made) == 5
    assert list(ahead) == list(range(1, 20))
    assert list(read_ahead(items(), 0)) == list(range(20))


def test_an_error_of_the_thread_comes_behind_its_items():
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield 1
            yield 2
            raise MTAdaptError("frame 3")
        finally:
            closed.set()

    ahead = read_ahead(items(), 1)
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(MTAdaptError, match="frame 3"):
        next(ahead)
    assert closed.wait(2)


def test_leaving_early_stops_the_thread():
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.set()

    ahead = read_ahead(items(), 2)
    next(ahead)
    ahead.close()
    assert closed.wait(2)
    assert not any(thread.name == "read-ahead" and thread.is_alive() for thread in threading.enumerate())
