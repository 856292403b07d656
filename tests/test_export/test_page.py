"""docs/export.md: its table is that of the log beside it."""

from __future__ import annotations

import json
import sys

from tests.command_line import ROOT

sys.path.insert(0, str(ROOT / "tools/analysis_tools"))


def test_the_table_of_latency_is_that_of_the_log():
    from benchmarks.export_latency import table_of

    log = ROOT / "docs/logs/export_latency/mt_synthetic_lv.json"
    text = (ROOT / "docs/export.md").read_text()
    rows = table_of(log).splitlines()
    assert len(rows) == 2 + len(json.loads(log.read_text())["milliseconds"]) > 3
    for row in rows:
        assert row in text, row


def test_the_table_by_hand():
    from benchmarks.export_latency import ROUTES, table

    times = dict(zip(ROUTES, ([100.0, 200.0, 120.0], [50.0, 80.0, 66.0], [90.0, 190.0, 120.0]), strict=True))
    assert table({"1 of 320x192": times}).splitlines()[-1] == "| 1 of 320x192 | 120 | 66 | 0.50 | 120 | 0.95 |"
