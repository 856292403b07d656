"""The extensions of the documentation site; `make docs` builds the site itself, with every warning an error."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.test_documentation.blocks import ROOT

EXTENSIONS = ROOT / "docs/_ext"
PAGE = """# Page

[a folder](logs/runs), [a source](../tool.py), [no page](logs/report.md),
[a page](other.md#a-part), [cells](cells.ipynb)
"""
OTHER = """# Other

## A part

[back](page.md)
"""
CELLS = (
    '{"cells": [{"cell_type": "markdown", "source": ["# Cells\\n", "text"]}, {"cell_type": "code", "source": "1 + 1"}]}'
)
CONF = """
extensions = ["myst_parser", "linked_folders", "notebook_pages"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["logs"]
myst_heading_anchors = 3
root_doc = "page"
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A small repository whose extensions are copies, because they look for links in the folder they lie in."""
    docs = tmp_path / "docs"
    shutil.copytree(EXTENSIONS, docs / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    (docs / "logs/runs/one").mkdir(parents=True)
    (docs / "logs/runs/one/loss & more.json").write_text("{}")
    (docs / "logs/report.md").write_text("# Report\n")
    (tmp_path / "tool.py").write_text("print(1)\n")
    for name, text in (("conf.py", CONF), ("page.md", PAGE), ("other.md", OTHER), ("cells.ipynb", CELLS)):
        (docs / name).write_text(text)
    contents = "\n```{toctree}\nother\ncells\n```\n"
    (docs / "page.md").write_text(PAGE + contents)
    return tmp_path


@pytest.mark.skipif(importlib.util.find_spec("myst_parser") is None, reason="the extra 'docs' needs Python 3.11")
def test_links_and_notebooks(project: Path):
    """Every link of the page leads to what is there; without the extension the folder and the report are warnings."""
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", "site"]
    environment = {**os.environ, "PYTHONPATH": str(project / "docs/_ext")}
    built = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert built.returncode == 0, built.stderr
    site = project / "site"
    html = (site / "page.html").read_text()
    assert 'href="folders/docs/logs/runs/index.html"' in html and 'href="other.html#a-part"' in html
    listing = (site / "folders/docs/logs/runs/index.html").read_text()
    assert 'href="one/loss &amp; more.json"' in listing
    assert (site / "folders/docs/logs/runs/one/loss & more.json").read_text() == "{}"
    for name, text in (("tool.py", "print(1)\n"), ("report.md", "# Report\n")):
        (copy,) = (site / "_downloads").glob(f"*/{name}")
        assert copy.read_text() == text and f"_downloads/{copy.parent.name}/{name}" in html
    cells = (site / "cells.html").read_text()
    assert "<h1>Cells" in cells and 'class="highlight-python' in cells


def load(name: str) -> ModuleType:
    """An extension, which is no package."""
    spec = importlib.util.spec_from_file_location(name, EXTENSIONS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(importlib.util.find_spec("sphinx") is None, reason="the extra 'docs' needs Python 3.11")
def test_the_reference_has_every_public_name_once():
    """What is read from the sources is what the packages export, and every object has one place."""
    pages = load("api_pages")
    exported = pages.packages()
    assert {"mtadapt.apis", "mtadapt.models.adapters", "mtadapt.zoo"} <= set(exported)
    places: dict[int, list[str]] = {}
    for package, names in exported.items():
        module = importlib.import_module(package)
        assert set(names) == set(module.__all__)
        page = pages.page_of(package, names, exported)
        for line in page.splitlines():
            if line.startswith(".. auto") and not line.startswith((".. automodule", ".. autosummary")):
                kind, name = line.removeprefix(".. auto").split(":: ")
                assert kind in ("class", "exception", "function", "data")
                value = getattr(module, name.rsplit(".", 1)[1])
                places.setdefault(id(value), []).append(name)
    assert len(places) > 100
    assert not [names for names in places.values() if len(names) > 1]
