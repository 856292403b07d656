"""The examples in Python: complete ones run, excerpts name what exists, and messages are those of the package."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.test_documentation.blocks import PAGES, ROOT, Block, blocks, examples
from tests.test_documentation.components import classes_named, components, refused, tree_of
from tests.test_documentation.messages import templates

EXAMPLES = [block for page in PAGES for block in blocks(page) if block.language == "python"]
TROUBLES = ROOT / "docs/troubleshooting.md"


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"{block.page}-{block.line}")
def test_components_of_examples(block: Block):
    own = "\n".join(text for (page, _), text in examples().items() if page == block.page)
    for kind, settings in components(tree_of(block.text)):
        if f"class {kind}(" in own:
            continue
        found = classes_named(kind)
        assert found, f"{block.page}:{block.line}: no registry has {kind!r}"
        left = min((refused(each, settings) for each in found), key=len)
        assert not left, f"{block.page}:{block.line}: {kind} takes no {sorted(left)}"


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"{block.page}-{block.line}")
def test_what_examples_import(block: Block):
    """What an example imports from the package is public."""
    for node in ast.walk(tree_of(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mtadapt"):
            module = __import__(node.module, fromlist=["*"])
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block.page}:{block.line}: {node.module}.{alias.name}"


def test_a_wrong_example_is_found():
    """The two checks above see a misspelt type and a misspelt setting."""
    ((kind, settings),) = components(tree_of("model = dict(type='LVAdaptr', in_channels=96, ...)"))
    assert not classes_named(kind) and settings == {"in_channels"}
    adapter = classes_named("mtadapt.LVAdapter")[0]
    assert refused(adapter, {"in_channels", "prompt"}) == {"prompt"}


def test_files_of_examples_are_used():
    """A file that a page shows is one that a command of the page needs."""
    for (page, name), text in examples().items():
        commands = "\n".join(block.text for block in blocks(ROOT / "docs" / page) if block.language != "python")
        module = Path(name).stem
        others = "\n".join(other for (its, _), other in examples().items() if its == page and other != text)
        assert name in commands or re.search(rf"imports=\[.*\"{module}\"", others), f"{page}: {name}"


def test_messages_of_the_troubleshooting():
    """Every message there is one that the sources can give."""
    known = templates()
    quoted = [block for block in blocks(TROUBLES) if block.language == "text"]
    assert len(quoted) > 15
    for block in quoted:
        message = " ".join(block.text.split()).removeprefix("error: ")
        assert any(template.fullmatch(message) for template in known), f"{block.line}: {message}"


def test_a_wrong_message_is_found():
    assert not any(template.fullmatch("work_dirs/x.pth: no such chekpoint (load_from)") for template in templates())
