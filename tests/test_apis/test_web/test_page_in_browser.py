"""The page in a real browser, served by the tool in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlparse

import cv2
import numpy as np
import pytest

from tests.command_line import ROOT
from tests.test_apis.test_web.conftest import Trained

sync_api = pytest.importorskip("playwright.sync_api", reason="the extra 'tests' is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")

TIMEOUT = 60_000


class Server:
    """The tool, its address and its log."""

    def __init__(self, trained: Trained, folder: Path) -> None:
        self.log = folder / "log.txt"
        command = [ROOT / "tools/web_demo.py", trained.config, trained.checkpoint, "--examples", trained.examples]
        settings = ["--port", 0, "--max-upload-mb", 1, "--device", "cpu"]
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        env = dict(os.environ, OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT), TMPDIR=str(self.temporary))
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, [*command, *settings])],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=env,
                cwd=folder,
            )
        assert self.process.stdout is not None
        found = None
        while found is None:
            line = self.process.stdout.readline()
            assert line, self.log.read_text()
            found = re.match(r"serving on (http://127\.0\.0\.1:\d+) ", line)
        self.address = found[1]

    def end(self, number: signal.Signals) -> None:
        """End it: what visitors sent goes with it."""
        assert list(self.temporary.glob("mtadapt-web-*"))
        self.process.send_signal(number)
        try:
            assert self.process.wait(timeout=60) == 0
        finally:
            self.process.kill()
        # gradio logs the stack where it refuses a path itself.
        log = self.log.read_text()
        assert log.count("Traceback") == log.count("gradio.exceptions.InvalidPathError: ")
        assert list(self.temporary.glob("mtadapt-web-*")) == []


@pytest.fixture(scope="module")
def server(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(trained, tmp_path_factory.mktemp("server"))
    yield server
    server.end(signal.SIGTERM)


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Visit:
    """A visitor's page, what it complained about and what it asked for."""

    def __init__(self, browser: sync_api.Browser, server: Server, **context: object) -> None:
        self.context = browser.new_context(accept_downloads=True, **context)
        self.context.set_default_timeout(TIMEOUT)
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(server.address)
        sync_api.expect(self.page.locator("#status")).to_contain_text("Upload a picture", timeout=TIMEOUT)
        # A click that comes before the gallery has its pictures may be lost.
        self.page.wait_for_function(
            "() => [...document.querySelectorAll('#examples img')].every(each => each.complete && each.naturalWidth)"
        )
        self.page.wait_for_load_state("load")

    def wait_for(self, text: str | re.Pattern[str]) -> str:
        """Wait for the status line and return it."""
        sync_api.expect(self.page.locator("#status")).to_contain_text(text, timeout=TIMEOUT)
        return self.page.locator("#status").inner_text()

    def pick(self, number: int) -> str:
        """Pick an example and return the status line."""
        self.page.locator("#examples button.thumbnail-item").nth(number).click()
        return self.wait_for("predicted in")

    def picture(self, other_than: str = "") -> str:
        """Address of the picture, which holds the hash of its content."""
        image = self.page.locator("#picture img")
        image.wait_for()
        if other_than:
            sync_api.expect(image).not_to_have_attribute("src", other_than, timeout=TIMEOUT)
        address = image.get_attribute("src")
        assert address
        return address

    def table(self, name: str) -> list[list[str]]:
        """Rows of a table, once there are some."""
        self.page.locator(f"#{name} [data-testid=cell-0-0]").wait_for()
        return self.page.evaluate(
            """name => [...document.querySelectorAll(`#${name} [data-row][data-col]`)].reduce((rows, cell) => {
                (rows[cell.dataset.row] ??= [])[cell.dataset.col] = cell.innerText.trim();
                return rows;
            }, [])""",
            name,
        )

    def move(self, slider: str, value: float) -> None:
        """Type a value beside a slider."""
        field = self.page.locator(f"#{slider} input[type=number]")
        field.fill(str(value))
        field.press("Enter")
        field.blur()

    def send(self, path: Path) -> None:
        self.page.locator("#upload input[type=file]").set_input_files(path)


@pytest.fixture
def visit(browser: sync_api.Browser, server: Server) -> Iterator[Visit]:
    visit = Visit(browser, server, viewport=dict(width=1280, height=1000))
    yield visit
    visit.context.close()
    assert visit.errors == []
    hosts = {urlparse(url).hostname for url in visit.requests if not url.startswith(("data:", "blob:"))}
    assert hosts == {"127.0.0.1"}
    assert server.process.poll() is None


def test_an_example_gives_overlays_tables_and_json(visit: Visit, trained: Trained, tmp_path: Path) -> None:
    visit.move("threshold", 0.05)
    status = visit.pick(0)
    name = sorted(trained.examples.iterdir())[0].name
    found = re.match(rf"{name}: 160x96 pixels, (\d+) boxes, predicted in \d+\.\d s$", status)
    assert found, status
    visit.picture()
    boxes = visit.table("boxes")
    assert boxes and {row[0] for row in boxes} == {"det"}
    with visit.page.expect_download() as download:
        visit.page.locator("#download").click()
    download.value.save_as(tmp_path / "found.json")
    assert download.value.suggested_filename == f"{Path(name).stem}.json"
    (frame,) = json.loads((tmp_path / "found.json").read_text())["frames"]
    detections = [label for label in frame["labels"] if "box2d" in label]
    assert len(detections) == int(found[1]) >= len(boxes) and frame["size"] == dict(width=160, height=96)
    # A long table holds only the rows that are in sight.
    scores = sorted((label["score"] for label in detections), reverse=True)[: len(boxes)]
    assert [float(row[2]) for row in boxes] == pytest.approx(scores, abs=0.001)
    assert {row[1] for row in boxes} <= {label["category"] for label in detections}
    visit.page.get_by_role("tab", name="Classes").click()
    shares = [row for row in visit.table("shares") if row[0] == "sem_seg"]
    assert sum(float(row[2].split()[0]) for row in shares) == pytest.approx(100, abs=1)


def test_tasks_threshold_and_opacity_redraw(visit: Visit) -> None:
    visit.move("threshold", 0.05)
    first = visit.pick(0)
    picture = visit.picture()
    visit.move("opacity", 0.9)
    opaque = visit.picture(other_than=picture)
    visit.move("opacity", 0.5)
    assert urlparse(visit.picture(other_than=opaque)).path.split("/")[-2] == urlparse(picture).path.split("/")[-2]
    visit.move("threshold", 1)
    visit.wait_for(" 0 boxes,")
    sync_api.expect(visit.page.locator("#boxes")).not_to_contain_text("det", timeout=TIMEOUT)
    visit.move("threshold", 0.05)
    visit.wait_for(first.split(":")[1].split(",")[1])
    before = visit.picture()
    visit.page.locator("#tasks").get_by_label("det").uncheck()
    visit.wait_for(" 0 boxes,")
    visit.picture(other_than=before)
    for task in ("drivable", "sem_seg"):
        visit.page.locator("#tasks").get_by_label(task).uncheck()
    visit.page.get_by_role("tab", name="Classes").click()
    sync_api.expect(visit.page.locator("#shares")).not_to_contain_text("%", timeout=TIMEOUT)
    visit.page.locator("#tasks").get_by_label("det").check()
    visit.wait_for(first.split(":")[1].split(",")[1])


def test_names_change_what_is_found_and_reset_brings_it_back(visit: Visit, browser, server: Server) -> None:
    page = visit.page
    visit.pick(0)
    before = visit.picture()
    page.locator("#prompts").get_by_text("Names of the classes").click()
    page.locator("#prompts").get_by_role("tab", name="sem_seg").click()
    field = page.locator("#name-sem_seg-0 input, #name-sem_seg-0 textarea")
    assert field.input_value() == "road"
    field.fill("zebra")
    page.locator("#apply").click()
    assert visit.wait_for("with other names").endswith("with other names: zebra for road")
    visit.picture(other_than=before)
    # Another visitor still has the model as it was trained.
    other = Visit(browser, server)
    other.pick(0)
    assert urlparse(other.picture()).path.split("/")[-2] == urlparse(before).path.split("/")[-2]
    other.context.close()
    field.fill("sidewalk")
    page.locator("#apply").click()
    assert "'sidewalk' is there twice" in visit.wait_for("there twice")
    field.fill(" ")
    page.locator("#apply").click()
    visit.wait_for("is no text")
    page.locator("#reset").click()
    status = visit.wait_for("predicted in")
    assert "other names" not in status and field.input_value() == "road"
    assert urlparse(visit.picture()).path.split("/")[-2] == urlparse(before).path.split("/")[-2]


def test_an_uploaded_picture(visit: Visit, tmp_path: Path) -> None:
    scene = np.random.default_rng(0).integers(0, 256, (120, 200, 3), np.uint8)
    for number in (1, 2):
        assert cv2.imwrite(str(tmp_path / f"scene {number}.png"), scene)
        visit.send(tmp_path / f"scene {number}.png")
        assert "200x120 pixels" in visit.wait_for(f"scene {number}.png")
    assert visit.picture()


def test_a_large_picture_is_told_in_its_own_pixels(visit: Visit, tmp_path: Path) -> None:
    """Predicted once and again, it is the file's size that counts."""
    assert cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((48, 2400, 3), np.uint8))
    visit.move("threshold", 0)
    visit.send(tmp_path / "wide.png")
    size = "wide.png: 2400x48 pixels (predicted at 1600x32), "
    status = visit.wait_for(size)
    visit.page.locator("#prompts").get_by_text("Names of the classes").click()
    visit.page.locator("#prompts").get_by_role("tab", name="sem_seg").click()
    visit.page.locator("#name-sem_seg-0 input, #name-sem_seg-0 textarea").fill("zebra")
    visit.page.locator("#apply").click()
    assert size in visit.wait_for("zebra for road") and "zebra" not in status
    visit.page.locator("#reset").click()
    sync_api.expect(visit.page.locator("#status")).not_to_contain_text("zebra", timeout=TIMEOUT)
    visit.wait_for(size)
    with visit.page.expect_download() as download:
        visit.page.locator("#download").click()
    download.value.save_as(tmp_path / "found.json")
    (frame,) = json.loads((tmp_path / "found.json").read_text())["frames"]
    assert frame["name"] == "wide.png" and frame["size"] == dict(width=2400, height=48)
    assert {tuple(label["rle"]["size"]) for label in frame["labels"] if "rle" in label} == {(48, 2400)}
    boxes = [label["box2d"] for label in frame["labels"] if "box2d" in label]
    assert 1600 < max(box["x2"] for box in boxes) < 2400


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("notes.txt", b"some text", "notes.txt is no image that can be read; send a JPEG, PNG, BMP, WebP or TIFF file"),
        ("notes.png", b"some text", "notes.png is no image that can be read"),
        ("cut.jpg", None, "cut.jpg: truncated or not an image"),
        ("bomb.png", "bomb", "bomb.png has 9000x9000 pixels; up to 40 million are taken: make it smaller"),
        ("a&b<i>c.png", b"text", "is no image that can be read"),
    ],
)
def test_a_wrong_file_is_told_and_the_page_goes_on(
    visit: Visit, tmp_path: Path, name: str, content: bytes | str | None, message: str
) -> None:
    visit.pick(0)
    visit.picture()
    if content is None:
        content = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8))[1].tobytes()[
            :2000
        ]
    elif content == "bomb":
        content = cv2.imencode(".png", np.zeros((9000, 9000), np.uint8))[1].tobytes()
    assert isinstance(content, bytes) and len(content) < 1e6
    (tmp_path / name).write_bytes(content)
    visit.send(tmp_path / name)
    visit.wait_for(message)
    assert visit.page.locator("#status [role=alert]").count() == 1
    assert visit.page.locator("#status i").count() == 0
    # Nothing of the picture before it stays under the message.
    sync_api.expect(visit.page.locator("#picture img")).to_have_count(0, timeout=TIMEOUT)
    sync_api.expect(visit.page.locator("#boxes")).not_to_contain_text("det", timeout=TIMEOUT)
    sync_api.expect(visit.page.locator("#download")).to_be_disabled(timeout=TIMEOUT)
    assert "predicted in" in visit.pick(1)


def test_a_file_that_is_too_large_is_told_and_the_page_goes_on(visit: Visit, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    assert cv2.imwrite(str(tmp_path / "large.png"), noise) and (tmp_path / "large.png").stat().st_size > 1e6
    visit.send(tmp_path / "large.png")
    toast = visit.page.get_by_test_id("toast-body")
    toast.first.wait_for()
    assert re.search(r"size|large", toast.first.inner_text(), re.I), toast.first.inner_text()
    # The limit as the label has it.
    assert re.search(r"\b1(\.0)? M", toast.first.inner_text(), re.I), toast.first.inner_text()
    assert "predicted in" in visit.pick(0)


def test_the_server_refuses_what_is_too_large_whoever_sends_it(server: Server) -> None:
    """A client that does not look at the limit itself."""
    import httpx

    with httpx.Client(trust_env=False, timeout=60) as client:
        answer = client.post(f"{server.address}/gradio_api/upload", files={"files": ("a.png", b"\0" * 1_200_000)})
        assert answer.status_code == 413
        for path in ("/etc/hostname", str(ROOT / "README.md")):
            assert client.get(f"{server.address}/gradio_api/file={path}").status_code in (403, 404)
        assert client.get(server.address).status_code == 200
        for path in ("/openapi.json", "/docs", "/redoc"):
            assert client.get(f"{server.address}{path}").status_code == 404


@pytest.mark.parametrize("path", ["/etc/hostname", str(ROOT / "docs/images/demo.jpg"), "http://127.0.0.1:9/a.jpg"])
def test_only_what_was_sent_is_taken_for_an_upload(server: Server, path: str) -> None:
    """A client that names a file of the server, or an address, in place of one that it sent."""
    import httpx

    with httpx.Client(trust_env=False, timeout=60) as client:
        config = client.get(f"{server.address}/config").json()
        event = next(one for one in config["dependencies"] if [target[1] for target in one["targets"]] == ["upload"])
        values = {one["id"]: one["props"].get("value") for one in config["components"]}
        data = [values[number] for number in event["inputs"]]
        data[0] = dict(path=path, meta=dict(_type="gradio.FileData"))
        call = dict(data=data, fn_index=event["id"], session_hash=f"visitor{len(path)}")
        assert client.post(f"{server.address}/gradio_api/queue/join", json=call).status_code == 200
        answers = client.get(
            f"{server.address}/gradio_api/queue/data", params=dict(session_hash=call["session_hash"])
        ).text
        (done,) = [line for line in answers.splitlines() if '"process_completed"' in line]
        assert json.loads(done.removeprefix("data:"))["success"] is False
    assert server.process.poll() is None


@pytest.mark.slow
def test_ctrl_c_ends_it(trained: Trained, tmp_path: Path) -> None:
    Server(trained, tmp_path).end(signal.SIGINT)


def test_a_narrow_screen(browser: sync_api.Browser, server: Server) -> None:
    visit = Visit(browser, server, viewport=dict(width=390, height=800))
    visit.pick(0)
    visit.picture()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
    visit.context.close()
