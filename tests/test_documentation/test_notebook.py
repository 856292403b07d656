"""The tutorial notebook runs from its first cell to its last, as a reader would run it."""

from __future__ import annotations

import ast
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.test_documentation.blocks import ROOT

NOTEBOOK = ROOT / "docs/tutorial.ipynb"


def test_it_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs and cell.execution_count is None


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The last values of its cells are those that a trained model gives; the last cell shows a picture."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=dict(metadata=dict(path=tmp_path)))
    client.execute()
    shown = [
        output.data
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "execute_result"
    ]
    assert len(shown) == 6
    assert ast.literal_eval(shown[1]["text/plain"]) == dict(
        det="FasterRCNN", sem_seg="EncoderDecoder", drivable="EncoderDecoder"
    )
    losses = ast.literal_eval(shown[3]["text/plain"])
    assert set(losses) == {"det.loss_cls", "sem_seg.decode.loss_ce", "drivable.decode.loss_ce"}
    assert all(0 < loss < 10 for loss in losses.values())
    assert "('det', 'drivable', 'sem_seg'), (1, 96, 160)" in shown[4]["text/plain"]
    assert shown[5]["image/png"]
    assert list((tmp_path / "work_dirs/tutorial/run").glob("*.pth"))
