"""The files of the report, and how numbers are written in them."""

from __future__ import annotations

import csv
import re
from itertools import pairwise
from pathlib import Path

import pytest

from mtadapt.zoo.report import write_report
from mtadapt.zoo.report.bars import axis, charts
from mtadapt.zoo.report.benchmark import read_benchmarks
from mtadapt.zoo.report.statistics import Summary
from mtadapt.zoo.report.wording import count, hours, number, p_value, spread, stages
from tests.zoo_results import weights, write_cell, write_grid

# The files


def written(results: Path, out: Path | None = None) -> dict[str, str]:
    paths = write_report(results, out or results / "report")
    return {path.name: path.read_text() for path in paths}


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    write_grid(tmp_path)
    first = written(tmp_path)
    assert list(first) == ["results.csv", "report.md", "report.html"]
    assert written(tmp_path) == first


def test_csv_has_every_run_with_its_numbers_in_full(tmp_path: Path) -> None:
    write_grid(tmp_path)
    failed = write_cell(tmp_path, "pretrain", "own", "pretrain", 0, status="failed", error="of\nlines", seconds=90)
    (failed / "output.txt").unlink()
    lines = list(csv.DictReader(written(tmp_path)["results.csv"].splitlines()))
    assert len(lines) == 2 * 3 * (3 + 2) + 1
    (own,) = [line for line in lines if line["kind"] == "pretrain"]
    assert (own["status"], own["error"], own["log"], own["device_hours"]) == ("failed", "of lines", "", "0.025")
    keys = dict(kind="multi_task", checkpoint="imagenet", paradigm="adapt_finetune", seed="1")
    (line,) = [line for line in lines if keys.items() <= line.items()]
    assert (float(line["det/bbox_mAP"]), float(line["det/bbox_mAP_50"])) == pytest.approx((0.24, 0.6))
    assert float(line["multi_task_delta_percent"]) == pytest.approx(25 / 3)
    assert float(line["multi_task_delta_percent_against_reference"]) == pytest.approx(25 / 3)
    assert (line["weights:sha256"], line["weights:share"]) == (weights("imagenet")["sha256"], "1.0")
    assert line["config"] == "../multi_task/full/adapt_finetune/imagenet/seed1/config.py"


def test_markdown_tables_are_whole_and_links_resolve(tmp_path: Path) -> None:
    write_grid(tmp_path)
    page = written(tmp_path, tmp_path / "a folder" / "report")["report.md"]
    lines = page.splitlines()
    for before, line in pairwise(lines):
        if before.startswith("|") and line.startswith("|"):
            assert before.count("|") == line.count("|")
            assert len(before) == len(line)
    assert re.search(
        r"\| imagenet +\| adapt_finetune +\| +24\.0 ± 1\.0 \| +38\.0 ± 0\.0 \| +99\.0 ± 0\.0 \| +\+8\.3 ± 1\.7 \|", page
    )
    links = re.findall(r"\]\((.+?)\)", page)
    assert len(links) == 2 * 30
    assert all((tmp_path / "a folder" / "report" / link).is_file() for link in links)


def test_markdown_shows_names_as_they_are(tmp_path: Path) -> None:
    write_cell(tmp_path, "multi_task", "a|b", "*p*", 0, status="failed", error="<b>\n`x` _y_ a_b", reference="")
    page = written(tmp_path)["report.md"]
    assert "a\\|b" in page
    assert "\\*p\\*" in page
    assert "\\<b\\> \\`x\\` \\_y\\_ a_b" in page


def test_links_only_to_what_is_there(tmp_path: Path) -> None:
    folder = write_cell(tmp_path, "multi_task", "random", "finetune", 0)
    (folder / "output.txt").unlink()
    page = written(tmp_path)["report.md"]
    assert "[config](../multi_task/full/finetune/random/seed0/config.py) |" in page
    assert "[log]" not in page


def test_all_runs_failed_is_still_a_report(tmp_path: Path) -> None:
    write_cell(tmp_path, "multi_task", "random", "finetune", 0, status="failed", error="boom", tasks=())
    pages = written(tmp_path)
    assert "0 of 1 runs finished, 1 failed" in pages["report.md"]
    assert "seed 0 failed: boom" in pages["report.html"]


# Numbers in words


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (number(-0.04, sign=True), "0.0"),
        (number(-1.25, 2), "\N{MINUS SIGN}1.25"),
        (number(1.25, sign=True), "+1.2"),
        (number(None), "\N{EN DASH}"),
        (hours(0.0049), "0.0049"),
        (hours(0.2), "0.200"),
        (hours(4.257), "4.26"),
        (hours(42.57), "42.6"),
        (hours(1234.5), "1234"),
        (count(4_682_000), "4.68 M"),
        (count(23_500), "23.5 k"),
        (count(1_300_000_000), "1.3 G"),
        (count(512), "512"),
        (stages({"train": 1000}), "1 k"),
        (stages({"adapt": 1000, "finetune": 2_000_000}), "adapt 1 k, finetune 2 M"),
        (p_value(0.0004), "< 0.001"),
        (p_value(0.0449), "0.045"),
        (p_value(0.5), "0.50"),
    ],
)
def test_numbers_are_written_so(ours: str, expected: str) -> None:
    assert ours == expected


def test_the_number_of_seeds_is_named_where_some_are_missing() -> None:
    summary = Summary({0: 23.0, 1: 24.0, 2: 25.0})
    assert spread(summary, 3) == "24.0 ± 1.0"
    assert spread(summary, 5) == "24.0 ± 1.0 (n=3)"


# Bars


@pytest.mark.parametrize(
    ("end", "ticks"),
    [
        (96.9, (0, 50, 100)),
        (17.9, (0, 5, 10, 15, 20)),
        (20.0, (0, 5, 10, 15, 20)),
        (53.0, (0, 20, 40, 60)),
        (0.6, (0, 0.2, 0.4, 0.6)),
        (0.0, (0, 0.5, 1.0)),
    ],
)
def test_axis_begins_at_zero_and_has_round_ticks(end: float, ticks: tuple[float, ...]) -> None:
    assert axis(end) == ticks


def test_bars_lie_where_the_axis_says(tmp_path: Path) -> None:
    write_grid(tmp_path)
    (benchmark,) = read_benchmarks(tmp_path)
    chart = charts(benchmark.tables[0])[0]
    assert chart.ticks[-1] == 30
    assert [chart.place(value) for value in (0, 15, 30, 31, -1)] == [0, 50, 100, 100, 0]
    group = chart.groups[1]
    assert (group.checkpoint, group.baseline.mean) == ("imagenet", 20.0)
    assert [bar.summary.mean for bar in group.bars] == pytest.approx([22.0, 24.0])
