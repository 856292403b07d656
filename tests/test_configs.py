"""Every config builds, trains on the tasks that it evaluates, and the big one runs at full size."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.registry import METRICS, MODELS, TRANSFORMS
from tests.command_line import ROOT, numbers, run

CONFIGS = sorted((ROOT / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds(path: Path):
    config = Config.fromfile(path)
    model = MODELS.build(config.model)
    metric = METRICS.build(config.val_evaluator)
    assert list(model.tasks) == list(metric.metrics)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        assert tuple(loader.dataset.tasks) == tuple(model.tasks)
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
    assert config.test_dataloader.dataset.data_root == config.train_dataloader.dataset.data_root
    assert str(config.filename).rsplit("/", 1)[-1] in path.read_text(), "the docstring is the command"


def test_the_public_recipes_are_kept():
    """Golden values of the BDD100K baselines that a change of a base file must not move."""
    config = Config.fromfile(ROOT / "configs/mt_bdd_baseline.py")
    preprocessor = config.model.data_preprocessor
    assert preprocessor.mean == [123.675, 116.28, 103.53] and preprocessor.std == [58.395, 57.12, 57.375]
    assert preprocessor.bgr_to_rgb and preprocessor.pad_size_divisor == 32
    assert config.optim_wrapper.optimizer == dict(type="SGD", lr=0.02, momentum=0.9, weight_decay=0.0001)
    assert config.param_scheduler[1].milestones == [8, 11] and config.train_cfg.max_epochs == 12
    assert config.auto_scale_lr.base_batch_size == 16
    names = [transform.type for transform in config.test_dataloader.dataset.pipeline]
    assert names.index("LoadMultiTaskAnnotations") > names.index("mmdet.Resize"), "ground truth keeps its size"
    config = Config.fromfile(ROOT / "configs/st_bdd_sem_seg.py")
    assert config.optim_wrapper.optimizer == dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=0.0005)
    assert config.train_cfg.max_iters == 40000 and config.param_scheduler[0].power == 0.9


def test_metafile_names_what_exists():
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    for name in index["Import"]:
        for collection in yaml.safe_load((ROOT / name).read_text())["Collections"]:
            assert (ROOT / collection["README"]).is_file()


@pytest.mark.slow
def test_bdd_baseline_runs_at_full_size(tmp_path: Path):
    write_bdd100k(tmp_path / "data", train=2, val=1, size=(1280, 720), seed=0)
    loaders = [f"{split}_dataloader.dataset.data_root={tmp_path}/data" for split in ("train", "val", "test")]
    options = ["model.backbone.init_cfg=None", "train_cfg.max_epochs=1", "default_hooks.logger.interval=1", *loaders]
    printed = run(
        ROOT / "tools/train.py",
        ROOT / "configs/mt_bdd_baseline.py",
        "--cfg-options",
        *options,
        cwd=tmp_path,
        timeout=900,
    )
    assert "Epoch(train) [1][1/1]" in printed
    assert {"det/bbox_mAP", "sem_seg/mIoU", "drivable/strict_mIoU"} <= numbers(printed, "val").keys()
