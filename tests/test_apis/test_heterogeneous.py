"""A model whose tasks have datasets of their own: each task is predicted with the pipeline of its source."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load

from mtadapt.apis import MultiTaskInferencer
from mtadapt.datasets.synthetic import write_heterogeneous
from mtadapt.engine import build_runner
from tests.command_line import ROOT

from .trained import Trained

CONFIG = """
_base_ = "{root}/configs/het_synthetic.py"
model = dict(backbone=dict(pretrained=None))
val_dataloader = dict(num_workers=0, persistent_workers=False, batch_size=1)
test_dataloader = val_dataloader
"""


@pytest.mark.slow
def test_each_task_has_the_pipeline_of_its_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_heterogeneous(Path("data/synthetic_heterogeneous"), train=8, val=8, size=(160, 96), seed=0, workers=1)
    trained = Trained(tmp_path / "het", CONFIG.format(root=ROOT))
    config = Config.fromfile(trained.config)
    config.load_from, config.work_dir, config.experiment_name = str(trained.checkpoint), str(tmp_path / "run"), "het"
    config.test_evaluator = [config.test_evaluator, dict(type="DumpResults", out_file_path="all.pkl")]
    config.default_hooks.pop("visualization", None)
    build_runner(config).test()

    inferencer = MultiTaskInferencer(trained.config, trained.checkpoint, device="cpu", show_progress=False)
    assert {pipeline.tasks for pipeline in inferencer.pipeline} == {("cls",), ("det", "sem_seg")} or {
        pipeline.tasks for pipeline in inferencer.pipeline
    } == {("cls",), ("det",), ("sem_seg",)}
    assert inferencer.dataset_meta["tasks"]["cls"]["classes"][0] == "bicycle"
    seen = set()
    for expected in load("all.pkl"):
        (sample,) = inferencer(expected["img_path"], return_datasamples=True)["predictions"]
        assert set(sample.tasks) == set(inferencer.tasks)
        for task in expected["labelled_tasks"]:
            seen.add(task)
            if task == "cls":
                assert torch.equal(sample.cls.pred_score, expected["cls"]["pred_score"])
            elif task == "det":
                assert torch.equal(sample.det.pred_instances.bboxes, expected["det"]["pred_instances"]["bboxes"])
                assert sample.det.pred_instances.bboxes[:, 2].max() > 80
            else:
                assert torch.equal(sample.sem_seg.pred_sem_seg.data, expected["sem_seg"]["pred_sem_seg"]["data"])
    assert seen == {"cls", "det", "sem_seg"}
    (frame,) = inferencer(expected["img_path"])["predictions"]
    assert frame["attributes"]["cls"] in inferencer.dataset_meta["tasks"]["cls"]["classes"]
    assert 0 < frame["attributes"]["cls_score"] <= 1
