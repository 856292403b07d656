"""The documentation site: ``make docs`` builds it, offline and with every warning an error."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

from mtadapt.version import __version__  # noqa: E402

project = "mtadapt"
author = "mtadapt authors"
project_copyright = "mtadapt authors"
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "api_pages",
    "linked_folders",
    "notebook_pages",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "_ext", "logs"]

# The pages are read on code hosts too: headings have the anchors that GitHub gives them.
myst_heading_anchors = 4
myst_links_external_new_tab = False

autosummary_generate = False
# What a class takes from MMEngine or torch is documented there.
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [("Reference", "notes_style"), ("Ours", "notes_style")]

html_theme = "furo"
html_title = f"mtadapt {__version__}"
html_static_path: list[str] = []
html_copy_source = False
