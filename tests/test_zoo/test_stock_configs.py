"""The single-task baselines of mmdet and mmseg against the multi-task model with one task."""

from __future__ import annotations

import random
from pathlib import Path

import mmdet
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import Tensor

from mtadapt.datasets import BDD100KDataset
from mtadapt.datasets.bdd100k_classes import METAINFO
from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.registry import DATASETS, METRICS, MODELS
from tests.command_line import ROOT, run

ZOO = ROOT / "configs/zoo"
TASKS = dict(det="mmdet", sem_seg="mmseg", drivable="mmseg")
KIND = dict(det="FasterRCNN", sem_seg="EncoderDecoder", drivable="EncoderDecoder")
#: What of a config the recipe of a training is.
RECIPE = ("optim_wrapper", "train_cfg", "val_cfg", "param_scheduler", "randomness", "log_processor")
LOADERS = dict(num_workers=0, persistent_workers=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stock_configs") / "data"
    write_bdd100k(folder, train=8, val=4, size=(480, 360), seed=2, workers=1)
    return folder


def read(path: Path, data: Path) -> Config:
    config = Config.fromfile(path)
    config.model.backbone.pretrained = None
    for split in ("train", "val"):
        loader = config[f"{split}_dataloader"]
        loader.update(LOADERS)
        loader.dataset.data_root = str(data)
    return config


def alone(config: Config, task: str) -> Config:
    """The multi-task config with one of its tasks."""
    config.model.tasks = {task: config.model.tasks[task]}
    config.val_evaluator.tasks = {task: config.val_evaluator.tasks[task]}
    for split in ("train", "val"):
        config[f"{split}_dataloader"].dataset.tasks = (task,)
    return config


def run_of(config: Config, task: str) -> tuple[dict[str, Tensor], dict[str, float], list[Tensor]]:
    """Losses of a first step, and metrics and predictions with the same weights, which tell classes apart."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    with DefaultScope.overwrite_default_scope(config.default_scope):
        torch.manual_seed(0)
        model = MODELS.build(config.model)
        model.init_weights()
        for name, parameter in model.named_parameters():
            if "conv_seg.weight" in name or "fc_cls.weight" in name or "fc_reg.weight" in name:
                parameter.data.normal_(std=0.5)
        torch.manual_seed(1)
        batch = next(iter(Runner.build_dataloader(config.train_dataloader, seed=0)))
        torch.manual_seed(2)
        losses = model.train()(**model.data_preprocessor(batch, True), mode="loss")
        loader = Runner.build_dataloader(config.val_dataloader, seed=0)
        metric = METRICS.build(config.val_evaluator)
        metric.dataset_meta = loader.dataset.metainfo
        model.eval()
        found = []
        with torch.no_grad():
            for batch in loader:
                samples = model.val_step(batch)
                metric.process(batch, [sample.to_dict() for sample in samples])
                natives = [sample.get(task, sample) for sample in samples]
                found += [
                    torch.cat([each.pred_instances.bboxes, each.pred_instances.scores[:, None]], 1)
                    if task == "det"
                    else each.pred_sem_seg.data
                    for each in natives
                ]
    total = {key: sum(value) if isinstance(value, list) else value for key, value in losses.items() if "loss" in key}
    return total, metric.evaluate(len(loader.dataset)), found


@pytest.mark.parametrize("task", TASKS)
def test_first_losses_and_metrics_are_those_of_the_single_task_model(task: str, data: Path):
    theirs, numbers, found = run_of(read(ZOO / f"camvid/single_{task}.py", data), task)
    ours, expected, others = run_of(alone(read(ZOO / "camvid/finetune.py", data), task), task)
    assert {f"{task}.{key}": value.item() for key, value in theirs.items()} == {
        key: value.item() for key, value in ours.items()
    }
    assert numbers == expected and [*numbers]
    assert all(torch.equal(one, two) for one, two in zip(found, others, strict=True))
    # Of three classes one may win everywhere; the losses are those of all numbers.
    assert task == "drivable" or any(len(one.unique()) > 1 for one in found)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("name", ["camvid", "synthetic"])
def test_recipe_and_model_are_those_of_the_multi_task_config(name: str, task: str):
    stock, multi = Config.fromfile(ZOO / name / f"single_{task}.py"), Config.fromfile(ZOO / name / "finetune.py")
    assert stock.default_scope == TASKS[task] and stock.model.type == f"{TASKS[task]}.{KIND[task]}"
    assert {key: stock[key] for key in RECIPE} == {key: multi[key] for key in RECIPE}
    assert stock.model.backbone == {**multi.model.backbone, "type": f"mtadapt.{multi.model.backbone.type}"}
    head = dict(multi.model.tasks[task])
    for key in ("_scope_", "type", "backbone", "neck"):
        head.pop(key, None)
    assert {key: stock.model[key] for key in head} == head and stock.model.neck == multi.model.neck
    for split in ("train", "val"):
        own, given = stock[f"{split}_dataloader"].to_dict(), multi[f"{split}_dataloader"].to_dict()
        steps, expected = (each["dataset"].pop("pipeline") for each in (own, given))
        changed = dict(type="mtadapt.BDD100KDataset", tasks=(task,))
        label_tasks = own["dataset"].pop("label_tasks", None)
        assert own == {**given, "dataset": {**given["dataset"], **changed}}
        assert label_tasks == (given["dataset"]["tasks"] if split == "train" else None)
        # The last step packs, and mmdet wants to know the scale where nothing is resized.
        moved = [step["type"].removeprefix("mtadapt.") for step in steps[:-1]]
        if (name, task, split) == ("synthetic", "det", "val"):
            moved.remove("mmdet.Resize")
        assert moved == [step["type"] for step in expected[:-1]]


def test_a_disjoint_label_setting_gives_each_task_its_share(data: Path):
    """The images of the three baselines are those of the tasks in the multi-task run, and no others."""
    multi = BDD100KDataset(data_root=str(data), label_setting="disjoint_normal")
    share: dict[str, set[str]] = {task: set() for task in TASKS}
    for number in range(len(multi)):
        info = multi.get_data_info(number)
        for task in info["labelled_tasks"]:
            share[task].add(info["img_path"])
    for task, images in share.items():
        config = read(ZOO / f"camvid/single_{task}.py", data)
        config.train_dataloader.dataset.label_setting = "disjoint_normal"
        with DefaultScope.overwrite_default_scope(config.default_scope):
            alone = DATASETS.build(config.train_dataloader.dataset)
        infos = [alone.get_data_info(number) for number in range(len(alone))]
        assert {info["img_path"] for info in infos} == images and images
        assert {info["labelled_tasks"] for info in infos} == {(task,)}
        assert alone.metainfo["classes"] == METAINFO["tasks"][task]["classes"]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_tools_of_the_libraries_train_them_as_ours_do(tmp_path: Path, data: Path, task: str):
    """Same seed, same log line of the validation."""
    library = dict(mmdet=mmdet, mmseg=mmseg)[TASKS[task]]
    options = [
        *("train_cfg.max_iters=2", "train_cfg.val_interval=2", "model.backbone.pretrained=None"),
        *(f"{split}_dataloader.dataset.data_root={data}" for split in ("train", "val", "test")),
    ]
    lines = []
    for number, script in enumerate((ROOT / "tools/train.py", Path(library.__file__).parent / ".mim/tools/train.py")):
        work_dir = tmp_path / str(number)
        config = ZOO / f"synthetic/single_{task}.py"
        printed = run(script, config, "--work-dir", work_dir, "--cfg-options", *options, cwd=tmp_path)
        assert (work_dir / "iter_2.pth").is_file()
        line = [line for line in printed.splitlines() if "Iter(val)" in line and f"{task}/" in line][-1]
        lines.append(line.split("]")[-1].split("data_time")[0])
    assert lines[0] == lines[1] and f"{task}/" in lines[0]
