"""The benchmarks of models at a tiny size: each writes its ratio and its floor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.command_line import ROOT, run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lv_adapter", "adapt_step", "prompt_step"])
def test_network_benchmark(tmp_path: Path, name: str):
    options = ("--size", "96", "160", "--repeats", "1", "--json", "out/result.json")
    printed = run(ROOT / "tools/analysis_tools/benchmark.py", name, *options, cwd=tmp_path, timeout=600)
    result = json.loads((tmp_path / "out/result.json").read_text())
    assert result["name"] == name and result["settings"]["device"] == "cpu"
    assert result["ratio"] > 0 and 0 < result["floor"] <= 1 and "milliseconds" in printed
