"""Configs with mistakes end in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from mtadapt.engine import load_config
from mtadapt.errors import MTAdaptError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = b", r"c.py: NameError: name 'b' is not defined; correct the config"),
        ("raise KeyError", r"c.py: KeyError; correct the config"),
        ("a = (", r"c.py: SyntaxError: .*; correct the config"),
        ("_base_ = 'gone.py'", r"c.py: \w+: .*; correct the config"),
    ],
)
def test_broken_config(tmp_path: Path, text: str, message: str):
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(MTAdaptError, match=message) as error:
        load_config(str(tmp_path / "c.py"))
    assert len(str(error.value).splitlines()) == 1


def test_work_dir_is_the_command_lines_then_the_configs_then_the_name(tmp_path: Path):
    (tmp_path / "c.py").write_text("a = dict(b=1)")
    assert load_config(str(tmp_path / "c.py"), {"a.b": 2}).a.b == 2
    assert load_config(str(tmp_path / "c.py")).work_dir == "work_dirs/c"
    assert load_config(str(tmp_path / "c.py"), {"work_dir": "x"}).work_dir == "x"
    assert load_config(str(tmp_path / "c.py"), {"work_dir": "x"}, "y").work_dir == "y"
