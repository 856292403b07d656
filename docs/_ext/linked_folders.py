"""Links of the pages to files and folders of the repository that are no pages, such as logs, work in the site too.

On a code host a link to a folder opens its listing. The site has no such listing, so each folder that a page links to
is copied into the site with a page that lists its files. A linked file is a download: MyST does that for sources and
JSON; here it is done for Markdown that is no page of the site.
"""

from __future__ import annotations

import os
import shutil
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "folders"


def resolve_links(app: Sphinx, doctree: nodes.document) -> None:
    """Replace references to existing folders by links to their copies, and to Markdown that is no page by downloads."""
    docname = app.env.docname
    here = Path(app.env.doc2path(docname)).parent
    folders = app.env.__dict__.setdefault("linked_folders", set())
    for node in list(doctree.findall(addnodes.pending_xref)):
        if node.get("reftype") != "myst":
            continue
        if node.get("refdomain") == "doc":
            file = Path(app.env.doc2path(node["reftarget"], base=True))
            if node["reftarget"] not in app.env.found_docs and file.is_file():
                target = os.path.relpath(file, here)
                node.replace_self(addnodes.download_reference("", "", *node.children, reftarget=target, refdoc=docname))
            continue
        folder = (here / node["reftarget"]).resolve()
        if not folder.is_dir() or not folder.is_relative_to(ROOT):
            continue
        name = folder.relative_to(ROOT).as_posix()
        folders.add(name)
        uri = f"{'../' * docname.count('/')}{FOLDER}/{name}/index.html"
        node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def copy_folders(app: Sphinx, error: Exception | None) -> None:
    """Copy the linked folders and write the page of each."""
    if error is not None or app.builder.format != "html":
        return
    for name in sorted(app.env.__dict__.get("linked_folders", ())):
        target = Path(app.outdir) / FOLDER / name
        shutil.copytree(ROOT / name, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns("index.html"))
        files = sorted(file.relative_to(target).as_posix() for file in target.rglob("*") if file.is_file())
        items = "\n".join(f'<li><a href="{escape(file)}">{escape(file)}</a></li>' for file in files)
        page = f'<!doctype html>\n<meta charset="utf-8">\n<title>{escape(name)}</title>\n<h1>{escape(name)}</h1>\n'
        (target / "index.html").write_text(f"{page}<ul>\n{items}\n</ul>\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register with Sphinx."""
    app.connect("doctree-read", resolve_links, priority=400)  # before Sphinx collects the downloads
    app.connect("build-finished", copy_folders)
    return dict(version="1", parallel_read_safe=False)
