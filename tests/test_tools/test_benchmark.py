"""The benchmarks at a tiny size: both routes do the same work, and every line is a ratio of what it says."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools/analysis_tools"
NUMBER = r"\d+\.\d\d"

Run = Callable[..., str]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a subcommand with its children in this process, which has imported everything, and return its output."""
    monkeypatch.syspath_prepend(str(TOOLS))
    common, benchmark = (importlib.import_module(name) for name in ("benchmarks._common", "benchmark"))

    def output(name: str, *options: object) -> str:
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            benchmark.main([name, *map(str, options)])
        return printed.getvalue()

    def run_here(name: str, *options: object) -> dict:
        return json.loads(output(name, *options).splitlines()[-1])

    monkeypatch.setattr(common, "run_child", run_here)
    return output


def ratios(printed: str) -> dict[str, tuple[float, float]]:
    """The two numbers of every line, once their ratio is the one that is printed."""
    found = {}
    for line in printed.splitlines():
        match = re.fullmatch(rf"\s*(.*): (\D.*) ({NUMBER}), (\D.*) ({NUMBER}), ratio (\S+)", line)
        if match:
            stock, ours = float(match[3]), float(match[5])
            if stock > 1:
                assert float(match[6]) == pytest.approx(ours / stock, abs=0.01)
            found[f"{match[1]}: {match[2]}"] = stock, ours
    assert re.search(r"^machine: .+, \d+ cores; Python 3\.\S+, torch \d\S+$", printed, re.MULTILINE), printed
    return found


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="private memory is read there")
def test_index(run: Run, tmp_path: Path):
    data = tmp_path / "data"
    printed = run("index", "--frames", 60, "--boxes", 500, "--repeats", 1, "--data", data)
    assert "index of 60 images and 500 boxes; equal number: True" in printed
    found = ratios(printed)
    names = ("label file MiB", "seconds", "peak MiB", "peak MiB over imports", "index MiB", "worker private MiB")
    assert set(found) == {f"{name}: stock" for name in names}
    assert min(found["peak MiB: stock"]) > 50


CHILD = """
import json, os, sys
assert sys.argv[1] == "index", "no such benchmark"
print("noise")
print(json.dumps({"arguments": sys.argv[2:], "pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"]}))
"""


def test_children_run_in_turns_after_a_warm_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.syspath_prepend(str(TOOLS))
    common = importlib.import_module("benchmarks._common")
    assert common.SCRIPT == TOOLS / "benchmark.py"
    script = tmp_path / "script.py"
    script.write_text(CHILD)
    monkeypatch.setattr(common, "SCRIPT", script)
    found = common.in_turns("index", ("stock", "mtadapt"), 2, "--frames", 7)
    assert {route: len(results) for route, results in found.items()} == {"stock": 2, "mtadapt": 2}
    assert found["stock"][1]["arguments"] == ["--route", "stock", "--frames", "7"]
    assert found["stock"][0]["threads"] == "1"
    assert len({result["pid"] for results in found.values() for result in results}) == 4
    with pytest.raises(RuntimeError, match=r"nothing +failed:(.|\n)*no such benchmark"):
        common.run_child("nothing")


def test_loading(run: Run):
    printed = run("loading", "--images", 2, "--repeats", 1)
    assert "equal images, boxes and maps: True" in printed
    found = ratios(printed)
    stock = ("stock, a pipeline a task", "stock, two pipelines")
    assert set(found) == {
        f"{what}: {name}" for what in ("images a second of one core", "upper bound") for name in stock
    }
    for name in stock:
        assert found[f"upper bound: {name}"][1] > found[f"images a second of one core: {name}"][1]


def test_evaluation(run: Run):
    printed = run("evaluation", "--images", 3, "--size", 40, 60, "--repeats", 1)
    assert "equal numbers: True" in printed
    assert set(ratios(printed)) == {"seconds: stock", "peak MiB: stock"}


def test_moe(run: Run, tmp_path: Path):
    tokens, width, experts, top_k = 40, 16, 4, 2
    options = ("--tokens", tokens, "--embed-dims", width, "--experts", experts, "--top-k", top_k, "--repeats", 2)
    printed = run("moe", *options, "--json", tmp_path / "moe.json")
    difference = re.search(r"largest difference between the outputs of mtadapt, loop, sorted: (\S+)", printed)
    assert difference and float(difference[1]) < 1e-5
    result = json.loads((tmp_path / "moe.json").read_text())
    assert [*result["ratios"]] == ["dense", "mtadapt", "loop", "sorted"]
    assert result["ratios"]["dense"] == 1 and result["ratio"] == result["ratios"]["mtadapt"] > 0
    router = width * width // 4 + width // 4 * experts
    assert result["floor"] == pytest.approx(1 + router / (2 * width * 4 * width))
    # A dense layer holds its input, and what goes into and out of GELU.
    held = {name: numbers["saved"] * 2**20 for name, numbers in result["MiB"].items()}
    assert held["dense"] == 4 * tokens * (width + 2 * 4 * width)
    rows, hidden = tokens * top_k, 4 * width // top_k
    assert held["loop"] > held["mtadapt"] > 4 * (tokens * width + rows * hidden)
    assert all(len(times) == 2 for times in result["milliseconds"].values())
