"""Notebooks as pages: their cells as Markdown, without running them, which the tests do."""

from __future__ import annotations

import json
from typing import Any, ClassVar

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


def as_markdown(notebook: str) -> str:
    """The cells of a notebook: text as it is, code as blocks.

    Args:
        notebook: the JSON of a notebook.
    """
    parts = []
    for cell in json.loads(notebook)["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    return "\n\n".join(parts) + "\n"


class NotebookParser(MystParser):
    """Parse a notebook as the Markdown of its cells."""

    supported: ClassVar[tuple[str, ...]] = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Fill the document."""
        super().parse(as_markdown(inputstring), document)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return dict(version="1", parallel_read_safe=True)
