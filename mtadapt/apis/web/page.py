"""The page in gradio: a picture in, overlays and tables out."""

from __future__ import annotations

import html
import json
import logging
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from mmengine.logging import print_log

from mtadapt.apis.web.predictor import Prediction, Predictor
from mtadapt.apis.web.uploads import UploadLimits, read_upload
from mtadapt.errors import MTAdaptError, first_line

TITLE = "What the model sees"
BOX_COLUMNS = ["task", "class", "score", "left", "top", "width", "height"]
SHARE_COLUMNS = ["task", "class", "share"]
#: One event at a time over all visitors: they share a processor.
_ONE: dict[str, Any] = dict(concurrency_id="model", concurrency_limit=1, api_visibility="private")
_KEPT_FILES = 20
#: Fonts of the system: the page loads nothing from elsewhere.
THEME = gr.themes.Default(
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
    font_mono=["ui-monospace", "Consolas", "monospace"],
)
CSS = """
#status {padding: 0;}
.status {margin: 0; padding: .5rem .75rem; border-radius: .4rem; border: 1px solid var(--border-color-primary);}
.status.error {border-color: #b91c1c; background: #fef2f2; color: #991b1b; font-weight: 600;}
.dark .status.error {background: #450a0a; color: #fecaca;}
#examples .grid-container {grid-template-columns: repeat(auto-fill, minmax(95px, 1fr)) !important;}
"""


def _take_what_was_sent(file: gr.File) -> None:
    """Refuse what is not among the uploads: a client may name an address or a file of the server in place of one.

    Not as a class of its own, beside which gradio would write a stub into this folder.
    """
    take = file.async_move_resource_to_block_cache

    async def take_sent(url_or_file_path: str | Path | None) -> str | None:
        path = url_or_file_path
        if path is not None and not Path(path).resolve().is_relative_to(Path(file.GRADIO_CACHE).resolve()):
            raise gr.Error("This file was not sent.", print_exception=False)
        return await take(path)

    file.async_move_resource_to_block_cache = take_sent  # type: ignore[method-assign]


class Page:
    """The components and what happens between them.

    Args:
        predictor: the model.
        examples: pictures to pick.
        limits: what an upload may have.
        work_dir: folder for the files that visitors download; old ones are removed.
    """

    def __init__(
        self, predictor: Predictor, examples: Sequence[Path], limits: UploadLimits, work_dir: str | Path
    ) -> None:
        self.predictor = predictor
        self.examples = list(examples)
        self.limits = limits
        self.work_dir = Path(work_dir)
        self._files: deque[Path] = deque()
        self._names: list[tuple[str, int, gr.Textbox]] = []

    def build(self) -> gr.Blocks:
        """Return the page."""
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as blocks:
            gr.Markdown(f"# {TITLE}")
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    self._build_input()
                with gr.Column(scale=2, min_width=420):
                    self._build_output()
            self._build_prompts()
            self._connect()
        return blocks

    def _build_input(self) -> None:
        self.file = gr.File(label=f"Picture, up to {self.limits.megabytes:g} MB", height=170, elem_id="upload")
        _take_what_was_sent(self.file)
        self.gallery: gr.Gallery | None = None
        if self.examples:
            self.gallery = gr.Gallery(
                value=[str(path) for path in self.examples],
                label="Examples",
                columns=3,
                height=300,
                allow_preview=False,
                interactive=False,
                object_fit="cover",
                buttons=[],
                elem_id="examples",
            )
        tasks = list(self.predictor.tasks)
        self.tasks = gr.CheckboxGroup(tasks, value=tasks, label="Tasks", elem_id="tasks")
        self.threshold = gr.Slider(0, 1, value=0.3, step=0.05, label="Least score of a box", elem_id="threshold")
        self.opacity = gr.Slider(0, 1, value=0.5, step=0.05, label="Opacity of classes", elem_id="opacity")

    def _build_output(self) -> None:
        self.shown = gr.State(None, time_to_live=3600)
        self.status = gr.HTML(_status("Upload a picture or pick an example."), elem_id="status", padding=False)
        self.picture = gr.Image(
            label="Prediction",
            show_label=False,
            interactive=False,
            format="jpeg",
            buttons=["fullscreen"],
            elem_id="picture",
        )
        with gr.Tab("Boxes"):
            self.boxes = gr.Dataframe(
                headers=BOX_COLUMNS, type="array", interactive=False, max_height=300, elem_id="boxes"
            )
        with gr.Tab("Classes"):
            self.shares = gr.Dataframe(
                headers=SHARE_COLUMNS, type="array", interactive=False, max_height=300, elem_id="shares"
            )
        self.download = gr.DownloadButton("Download JSON", interactive=False, elem_id="download")

    def _build_prompts(self) -> None:
        with gr.Accordion("Names of the classes", open=False, elem_id="prompts"):
            if self.predictor.fixed:
                gr.HTML(f"<p id='fixed'>{html.escape(self.predictor.fixed)}</p>")
                self.apply = self.reset = None
                return
            gr.Markdown(
                "LV-Adapter lets the features attend to these names; the heads keep their classes, so their number is "
                "fixed. Other words for a class, or words for something else, change what is found."
            )
            for task, names in self.predictor.prompts.items():
                with gr.Tab(task), gr.Row():
                    for number, name in enumerate(names):
                        box = gr.Textbox(
                            name, label=name, max_length=100, min_width=150, elem_id=f"name-{task}-{number}"
                        )
                        self._names.append((task, number, box))
            with gr.Row():
                self.apply = gr.Button("Predict with these names", variant="primary", elem_id="apply")
                self.reset = gr.Button("Reset", elem_id="reset")

    def _connect(self) -> None:
        settings: list[Any] = [self.tasks, self.threshold, self.opacity]
        names = [box for *_, box in self._names]
        outputs = [self.status, self.picture, self.boxes, self.shares, self.download, self.shown]
        self.file.upload(
            self._told(self._upload, [None], clear=True), [self.file, *settings, *names], [*outputs, self.file], **_ONE
        )
        if self.gallery is not None:
            # gradio gives the event to the argument that is annotated so.
            def select(event: gr.SelectData, *values: Any) -> list[Any]:
                return self._told(self._example, clear=True)(event.index, *values)

            self.gallery.select(select, [*settings, *names], outputs, **_ONE)
        for event in (self.tasks.change, self.threshold.release, self.opacity.release):
            event(self._told(self._redraw), [self.shown, *settings], outputs, show_progress="hidden", **_ONE)
        if self.apply is not None and self.reset is not None:
            self.apply.click(self._told(self._again), [self.shown, *settings, *names], outputs, **_ONE)
            trained = [name for one in self.predictor.prompts.values() for name in one]
            self.reset.click(self._told(self._reset, trained), [self.shown, *settings], [*outputs, *names], **_ONE)

    def _told(
        self, action: Callable[..., list[Any]], more: Sequence[Any] = (), clear: bool = False
    ) -> Callable[..., list[Any]]:
        """Let the status line tell what an action refuses.

        Args:
            action: takes the values of the inputs, returns those of the outputs.
            more: values for further outputs, whether or not it was refused.
            clear: empty the other outputs then, which are of another picture; else they stay as they are.
        """

        def refused(text: str) -> list[Any]:
            others: list[Any] = [gr.skip()] * 5
            if clear:
                others = [None, [], [], gr.DownloadButton(value=None, interactive=False), None]
            return [_status(text, "error"), *others]

        def run(*values: Any) -> list[Any]:
            try:
                outputs = action(*values)
            except MTAdaptError as error:
                outputs = refused(str(error))
            except Exception as error:
                print_log(f"web page: {first_line(error)}", "current", logging.ERROR)
                logging.getLogger(__name__).exception("an event of the web page failed")
                outputs = refused(f"This failed on the server: {first_line(error)}")
            return [*outputs, *more]

        return run

    def _upload(self, path: str | None, *values: Any) -> list[Any]:
        if path is None:
            raise MTAdaptError("No file has arrived; send it again.")
        return self._predict(Path(path), *values)

    def _example(self, number: int, *values: Any) -> list[Any]:
        return self._predict(self.examples[number], *values)

    def _predict(self, path: Path, tasks: list[str], threshold: float, opacity: float, *names: str) -> list[Any]:
        upload = read_upload(path, self.limits)
        prediction = self.predictor.predict(path.name, upload.image, self._gathered(names), upload.size)
        return self._show(prediction, tasks, threshold, opacity)

    def _again(
        self, shown: Prediction | None, tasks: list[str], threshold: float, opacity: float, *names: str
    ) -> list[Any]:
        if shown is None:
            raise MTAdaptError("There is no picture yet: upload one or pick an example.")
        prediction = self.predictor.predict(shown.name, shown.image, self._gathered(names), shown.size)
        return self._show(prediction, tasks, threshold, opacity)

    def _reset(self, shown: Prediction | None, tasks: list[str], threshold: float, opacity: float) -> list[Any]:
        if shown is None:
            return [gr.skip()] * 6
        return self._show(self.predictor.predict(shown.name, shown.image, size=shown.size), tasks, threshold, opacity)

    def _redraw(self, shown: Prediction | None, tasks: list[str], threshold: float, opacity: float) -> list[Any]:
        return [gr.skip()] * 6 if shown is None else self._show(shown, tasks, threshold, opacity)

    def _show(self, prediction: Prediction, tasks: list[str], threshold: float, opacity: float) -> list[Any]:
        """Values of the outputs."""
        (width, height), (*sides, _) = prediction.size, prediction.image.shape
        smaller = "" if [height, width] == sides else f" (predicted at {sides[1]}x{sides[0]})"
        boxes = self.predictor.boxes(prediction, tasks, threshold)
        said = (
            f"{prediction.name}: {width}x{height} pixels{smaller}, {len(boxes)} box{'es'[: 2 * (len(boxes) != 1)]}, "
            f"predicted in {prediction.seconds:.1f} s"
            + (f", with other names: {', '.join(prediction.renamed)}" if prediction.renamed else "")
        )
        return [
            _status(said),
            self.predictor.draw(prediction, tasks, threshold, opacity),
            boxes,
            self.predictor.shares(prediction, tasks),
            gr.DownloadButton(value=str(self._write(prediction, tasks, threshold)), interactive=True),
            prediction,
        ]

    def _gathered(self, values: Sequence[str]) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for (task, *_), value in zip(self._names, values, strict=True):
            names.setdefault(task, []).append(value)
        return names

    def _write(self, prediction: Prediction, tasks: Sequence[str], threshold: float) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.work_dir))
        path = folder / f"{Path(prediction.name).stem}.json"
        path.write_text(json.dumps(self.predictor.document(prediction, tasks, threshold)), encoding="utf-8")
        self._files.append(folder)
        while len(self._files) > _KEPT_FILES:
            shutil.rmtree(self._files.popleft(), ignore_errors=True)
        return path


def _status(text: str, kind: str = "") -> str:
    """The status line; the text may hold anything."""
    return f"<p class='status {kind}' role='{'alert' if kind else 'status'}'>{html.escape(text)}</p>"
