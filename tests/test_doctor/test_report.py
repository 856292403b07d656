"""The table, the JSON, and the space on the disk."""

from __future__ import annotations

import json
from collections import namedtuple
from pathlib import Path

import pytest

from mtadapt.doctor import Finding, machine
from mtadapt.doctor.report import as_json, as_table

FINDINGS = [
    Finding("packages", "torch", "ok", "2.11.0", "not shown"),
    Finding("packages", "numpy", "problem", "1.26; needed: >=2", 'pip install "numpy>=2"'),
    Finding("data", "train det", "warning", "word " * 40, "copy them"),
]


def test_table() -> None:
    lines = as_table(FINDINGS, width=80).splitlines()
    assert lines[0] == "packages  torch      ok       2.11.0"
    assert lines[1] == "          numpy      PROBLEM  1.26; needed: >=2"
    assert lines[2] == '                              -> pip install "numpy>=2"'
    assert lines[3] == "" and lines[4].startswith("data      train det  warning  word word")
    assert max(map(len, lines)) <= 80 and "not shown" not in "\n".join(lines)
    assert lines[-1] == "1 problem and 1 warning; the line behind each arrow (->) mends it."
    assert "\033[31mPROBLEM\033[0m" in as_table(FINDINGS, colour=True)
    assert as_table(FINDINGS[:1]).endswith("Everything is in order.")


def test_a_sample_of_files_is_told_and_how_to_read_all() -> None:
    sampled = Finding("data", "train files", "ok", "60 of 900 images read, all in order", sampled=True)
    advice = "Of the data a sample of files was read: --all reads every one."
    assert as_table([sampled]).endswith(f"\nWhat was looked at is in order. {advice}")
    assert as_table([sampled, *FINDINGS]).endswith(f"the line behind each arrow (->) mends it. {advice}")


def test_json() -> None:
    document = json.loads(as_json(FINDINGS))
    assert (document["problems"], document["warnings"]) == (1, 1)
    assert document["findings"][1] == dict(
        area="packages",
        name="numpy",
        status="problem",
        detail="1.26; needed: >=2",
        remedy='pip install "numpy>=2"',
        sampled=False,
    )


@pytest.mark.parametrize(("free", "status"), [(0.5, "problem"), (5, "warning"), (50, "ok")])
def test_disk(monkeypatch: pytest.MonkeyPatch, free: float, status: str) -> None:
    usage = namedtuple("usage", "total used free")(100 * 2**30, 0, int(free * 2**30))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: usage)
    found = machine.disk_finding("work_dirs", Path("/runs"))
    assert (found.status, found.detail) == (status, f"{free:.1f} GiB free of 100.0 (/runs)")


def test_machine_looks_at_the_disk_of_data_that_is_not_there_yet(tmp_path: Path) -> None:
    names = [one.name for one in machine.examine_machine(tmp_path / "not" / "yet")]
    assert names[0] == "processors" and "disk for work_dirs" in names
