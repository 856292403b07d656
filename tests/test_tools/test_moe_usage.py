"""tools/moe/usage.py on a checkpoint as MMEngine writes it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from mmengine.logging import HistoryBuffer

from tests.command_line import ROOT, last_line, run
from tests.test_visualization.test_expert_usage import layer_state

TOOL = ROOT / "tools/moe/usage.py"


def test_table_picture_and_numbers(tmp_path: Path):
    state = layer_state([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]], load=[[1.0, 0, 0, 0], [0, 0, 0, 1.0]])
    hub = dict(log_scalars=dict(loss=HistoryBuffer([1.0], [1])))
    torch.save(dict(state_dict=state, message_hub=hub, meta=dict(iter=30)), tmp_path / "iter_30.pth")
    printed = run(TOOL, "iter_30.pth", cwd=tmp_path)
    assert "| backbone.blocks.1.ffn |       4 |            0.69 |           0.693 |       0.693 |" in printed
    assert last_line(printed) == "picture: expert_usage/iter_30.png"
    assert (tmp_path / "expert_usage/iter_30.png").is_file()
    content = json.loads((tmp_path / "expert_usage/iter_30.json").read_text())["backbone.blocks.1.ffn"]
    assert content["load"] == dict(sem_seg=[1, 0, 0, 0], cls=[0, 0, 0, 1])
    assert abs(content["mutual_information"] - math.log(2)) < 1e-6


def test_a_checkpoint_without_experts_is_one_line(tmp_path: Path):
    torch.save(dict(state_dict=dict(weight=torch.ones(2))), tmp_path / "dense.pth")
    printed = run(TOOL, "dense.pth", "--out", "out", cwd=tmp_path, code=2)
    assert last_line(printed) == (
        "error: dense.pth: no layer with experts; give a checkpoint of a model with mlp_experts"
    )
    assert not (tmp_path / "out").exists()
