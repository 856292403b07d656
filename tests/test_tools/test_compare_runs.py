"""Runs of a folder of configs: trained once, failures told, logs collected for the table."""

from __future__ import annotations

from pathlib import Path

from mtadapt.datasets.synthetic import write_bdd100k
from tests.command_line import ROOT, last_line, run

CONFIG = """
_base_ = "{root}/configs/mt_synthetic_baseline.py"
train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}"))
val_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}"))
test_dataloader = val_dataloader
model = dict(backbone=dict(pretrained=None))
train_cfg = dict(max_epochs=1, val_interval=1)
"""


def test_run_collect_table(tmp_path: Path):
    write_bdd100k(tmp_path / "data", train=2, val=1, size=(160, 96), seed=1, workers=1)
    folder = tmp_path / "compared"
    folder.mkdir()
    (folder / "good.py").write_text(CONFIG.format(root=ROOT, data=tmp_path / "data"))
    (folder / "bad.py").write_text(CONFIG.format(root=ROOT, data=tmp_path / "nothing"))
    tool = ROOT / "tools/analysis_tools/compare_runs.py"
    printed = run(tool, "run", folder, "--seeds", "4", "--jobs", "2", cwd=tmp_path, code=2)
    assert "good seed 4: exit 0" in printed and "bad seed 4: exit 2" in printed
    assert last_line(printed).startswith("error: 1 of 2 runs failed; see output.txt")
    checkpoint = tmp_path / "work_dirs/compared/good/seed4/epoch_1.pth"
    before = checkpoint.stat().st_mtime_ns
    assert run(tool, "run", folder, "--seeds", "4", "--only", "good", cwd=tmp_path) == ""
    assert checkpoint.stat().st_mtime_ns == before
    assert "1 runs in" in run(tool, "collect", folder, tmp_path / "logs", cwd=tmp_path)
    log = tmp_path / "logs/good/seed4.json"
    assert "| good | 0.0 |" in run(ROOT / "tools/analysis_tools/results_table.py", log, cwd=tmp_path)
    printed = run(tool, "run", folder, "--only", "god", cwd=tmp_path, code=2)
    assert last_line(printed) == f"error: --only god: {folder} has bad, good"
    (folder / "good.py").write_text((folder / "good.py").read_text() + "randomness = dict(seed=9)\n")
    printed = run(tool, "run", folder, "--seeds", "4", "--only", "good", cwd=tmp_path, code=2)
    assert "was trained with another" in last_line(printed)
