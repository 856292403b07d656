"""Several machines: here two launches on one, each with a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from mtadapt.datasets.synthetic import write_bdd100k
from tests.command_line import ROOT, last_line, run

CONFIG = """
_base_ = "{root}/configs/mt_synthetic_baseline.py"
train_dataloader = dict(batch_size=1, num_workers=0, persistent_workers=False, dataset=dict(data_root="{data}"))
val_dataloader, val_cfg, val_evaluator = None, None, None
model = dict(backbone=dict(pretrained=None))
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
"""


def test_two_machines_train_one_model(tmp_path: Path):
    write_bdd100k(tmp_path / "data", train=4, val=1, size=(160, 96), seed=1, workers=1)
    (tmp_path / "config.py").write_text(CONFIG.format(root=ROOT, data=tmp_path / "data"))
    machines = []
    for rank in (1, 0):
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHON": sys.executable, "PYTHONPATH": str(ROOT)}
        env |= dict(NNODES="2", NODE_RANK=str(rank), MASTER_ADDR="127.0.0.1", PORT=str(33000 + os.getpid() % 2000))
        command = ["bash", str(ROOT / "tools/dist_train.sh"), "config.py", "1", "--work-dir", "work"]
        with (tmp_path / f"{rank}.txt").open("w") as output:
            machines.append(subprocess.Popen(command, cwd=tmp_path, env=env, stdout=output, stderr=subprocess.STDOUT))
    codes = [machine.wait(timeout=500) for machine in machines]
    printed = (tmp_path / "0.txt").read_text()
    assert codes == [0, 0], printed[-4000:] + (tmp_path / "1.txt").read_text()[-4000:]
    assert "GPU number: 2" in printed
    # Four images, one a process and step.
    assert len(re.findall(r"Epoch\(train\) \[1\]\[\d/2\]", printed)) == 2
    assert torch.load(tmp_path / "work/epoch_1.pth", weights_only=False)["meta"]["iter"] == 2


def test_several_machines_need_to_know_each_other(tmp_path: Path):
    command = ["env", "-u", "NODE_RANK", "-u", "MASTER_ADDR", "NNODES=2", "bash", ROOT / "tools/dist_train.sh"]
    printed = run(*command, "config.py", "1", cwd=tmp_path, code=2)
    assert last_line(printed) == (
        "error: NNODES=2 needs NODE_RANK (0 to NNODES-1) and MASTER_ADDR (the machine of rank 0)"
    )
