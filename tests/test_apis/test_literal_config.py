"""The reader of configs in checkpoints, against MMEngine's, which executes them."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from mtadapt.apis.literal_config import literal_config
from mtadapt.errors import MTAdaptError
from tests.command_line import ROOT


@pytest.mark.parametrize(
    "path", sorted(path.name for path in (ROOT / "configs").glob("*.py")), ids=lambda name: name.removesuffix(".py")
)
def test_every_config_is_read_as_it_was_dumped(path: str):
    text = Config.fromfile(ROOT / "configs" / path).pretty_text
    assert literal_config(text, path).to_dict() == Config.fromstring(text, ".py").to_dict()


def test_values_of_all_kinds():
    text = "a = dict(b=-1.5, c=None, d=(1, 'x'), e={'my key': [True], 3: {4}}, f=float('inf'))\ng = 'b=c'\n"
    assert literal_config(text, "file").to_dict() == dict(
        a=dict(b=-1.5, c=None, d=(1, "x"), e={"my key": [True], 3: {4}}, f=float("inf")), g="b=c"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("import os", "line 1 is no setting"),
        ("a = 1\nb = __import__('os').system('true')", r"line 2 calls __import__\('os'\).system"),
        ("a = dict(**open('x'))", "line 1 calls dict"),
        ("a = [open for open in ()]", "malformed node or string"),
        ("a = (", "was never closed"),
        ("a.b = 1", "line 1 is no setting"),
        ("a = " + "[" * 1000 + "]" * 1000, "too many nested"),
    ],
)
def test_everything_else_is_refused(text: str, reason: str):
    with pytest.raises(MTAdaptError, match=f"model.pth: its config cannot be read safely.*({reason})"):
        literal_config(text, "model.pth")
