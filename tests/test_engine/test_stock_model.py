"""A pruned model as a stock model of its library: the same predictions, no other router, its own data."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope
from mmengine.structures import BaseDataElement
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from torch import nn

from mtadapt.engine.stock_check import check_stock_model
from mtadapt.engine.stock_model import export_task, stock_model
from mtadapt.errors import MTAdaptError
from mtadapt.models.moe.surgery import prune
from mtadapt.registry import DATASETS, METRICS, MODELS
from mtadapt.structures import MultiTaskDataSample
from tests.models import BACKBONE, DETECTORS, NECK, NORMALISE, as_task, classifier, uper_head
from tests.moe_models import random_state, run_config, write_data

NATIVE = dict(cls=DataSample, det=DetDataSample, sem_seg=SegDataSample)
LIBRARY = dict(cls="mmpretrain", det="mmdet", sem_seg="mmseg")


def stock(config: Config, task: str) -> tuple[nn.Module, nn.Module, Config]:
    """The pruned multi-task model, the stock model and its config."""
    pruned, small = prune(config, random_state(config), [task], 0.16, keep_top_k=True)
    own, weights = stock_model(pruned, small)
    model = MODELS.build(copy.deepcopy(pruned.model))
    model.load_state_dict(small, strict=True)
    assert own.default_scope == LIBRARY[task]
    with DefaultScope.overwrite_default_scope(own.default_scope):
        single = MODELS.build(copy.deepcopy(own.model))
    single.load_state_dict(weights, strict=True)
    assert type(single).__module__.split(".")[0] == own.default_scope
    assert not [key for key in weights if "routers" in key and f"routers.{task}." not in key]
    return model.eval(), single.eval(), own


def predictions(model: nn.Module, single: nn.Module, task: str, sizes: list) -> tuple[list, list]:
    """What both say of the same images, given as each takes them."""
    generator = torch.Generator().manual_seed(2)
    images = [torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in sizes]
    metas = [
        dict(img_id=0, img_shape=size, ori_shape=(50, 80), scale_factor=(size[1] / 80, size[0] / 50)) for size in sizes
    ]
    many = [MultiTaskDataSample(metainfo=dict(meta, source="s", labelled_tasks=(task,))) for meta in metas]
    ours = model.test_step(dict(inputs=[image.clone() for image in images], data_samples=many))
    natives = [NATIVE[task](metainfo=meta) for meta in metas]
    theirs = single.test_step(dict(inputs=images, data_samples=natives))
    return [sample.task(task) for sample in ours], theirs


def fields(sample: BaseDataElement) -> dict[str, torch.Tensor]:
    if "pred_instances" in sample:
        return dict(sample.pred_instances.items())
    if "pred_sem_seg" in sample:
        return dict(map=sample.pred_sem_seg.data)
    return dict(score=sample.pred_score, label=sample.pred_label)


@pytest.mark.parametrize("task", ["cls", "det", "sem_seg"])
def test_the_stock_model_predicts_the_same(task: str):
    sizes = dict(cls=[(64, 64), (64, 64)], det=[(60, 96), (75, 64)], sem_seg=[(60, 90), (60, 90)])[task]
    model, single, own = stock(run_config(Path("data")), task)
    ours, theirs = predictions(model, single, task, sizes)
    for one, two in zip(ours, theirs, strict=True):
        first, second = fields(one), fields(two)
        assert first.keys() == second.keys() and sum(value.numel() for value in first.values())
        assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert own.load_from == "{{ fileDirname }}/stock.pth"


def test_a_task_with_its_own_neck():
    config = run_config(Path("data"))
    config.model.tasks.det.update(neck=dict(config.model.neck, type="FPN"))
    config.model.tasks.det.backbone.source = "backbone"
    config.model.neck = None
    model, single, own = stock(config, "det")
    assert own.model.neck.type == "FPN" and any(name.startswith("neck.lateral") for name in single.state_dict())
    ours, theirs = predictions(model, single, "det", [(64, 64)])
    assert torch.equal(ours[0].pred_instances.scores, theirs[0].pred_instances.scores)
    assert len(theirs[0].pred_instances.scores)


def test_a_level_of_the_shared_neck():
    config = run_config(Path("data"))
    config.model.tasks.cls.backbone.update(source="neck", indices=(2,))
    config.model.tasks.cls.head.in_channels = 32
    model, single, own = stock(config, "cls")
    kinds = [neck["type"] for neck in own.model.neck]
    assert kinds == ["mmdet.FPN", "mtadapt.SharedFeatures", "GlobalAveragePooling"]
    ours, theirs = predictions(model, single, "cls", [(64, 64)])
    assert torch.equal(ours[0].pred_score, theirs[0].pred_score)


@pytest.mark.parametrize("task", ["cls", "det", "sem_seg"])
def test_data_and_metric_are_those_of_the_task(task: str, tmp_path: Path):
    config = run_config(write_data(tmp_path))
    pruned, small = prune(config, random_state(config), [task])
    own, _ = stock_model(pruned, small)
    with DefaultScope.overwrite_default_scope(own.default_scope):
        dataset, metric = DATASETS.build(own.test_dataloader.dataset), METRICS.build(own.test_evaluator)
    for built in (dataset, metric):
        assert type(built).__module__.split(".")[0] == LIBRARY[task]
    assert type(dataset[0]["data_samples"]) is NATIVE[task]
    assert own.train_dataloader.batch_size == 2 and "batch_sampler" not in own.train_dataloader
    assert own.optim_wrapper == dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-2))


def test_several_tasks_are_no_stock_model():
    config = run_config(Path("data"))
    pruned = prune(config, random_state(config), ["cls", "det"])
    with pytest.raises(MTAdaptError, match="one task and one router; here are tasks cls, det and routers cls, det"):
        stock_model(*pruned)


def test_data_of_another_library_is_left_out():
    config = run_config(Path("data"))
    pruned, small = prune(config, random_state(config), ["det"])
    pruned.train_dataloader.dataset = ConfigDict(type="BDD100KDataset", tasks=["det"])
    own, _ = stock_model(pruned, small)
    assert "train_dataloader" not in own and own.model.type == "FasterRCNN"


@pytest.mark.parametrize("name", ["faster_rcnn", "rtmdet", "dino"])
def test_heads_of_any_kind_of_a_model_of_three_tasks(name: str):
    """Detectors on the shared neck and with a neck of their own, beside a segmentor and a classifier."""
    torch.manual_seed(0)
    tasks = dict(det=as_task(DETECTORS[name]()), sem_seg=as_task(uper_head()), cls=as_task(classifier()))
    config = Config(
        dict(
            default_scope="mtadapt",
            model=dict(
                type="MultiTaskModel",
                data_preprocessor=dict(type="MultiTaskDataPreprocessor", **NORMALISE),
                backbone=BACKBONE,
                neck=NECK,
                tasks=tasks,
            ),
        )
    )
    with DefaultScope.overwrite_default_scope("mtadapt"):
        model = MODELS.build(copy.deepcopy(config.model))
    model.init_weights()
    for task in tasks if name == "faster_rcnn" else ["det"]:
        own, weights = export_task(config, model.state_dict(), task)
        assert [key for key in own if "dataloader" in key] == [] and own.default_scope == LIBRARY[task]
        # Raises where one value is another.
        assert check_stock_model(config, model.state_dict(), task, own, weights, (96, 64)) > 0


def test_another_model_is_told():
    config = run_config(Path("data"), ("det",), mlp_experts=None)
    state = random_state(config)
    own, weights = export_task(config, state, "det")
    weights["roi_head.bbox_head.fc_cls.bias"] = weights["roi_head.bbox_head.fc_cls.bias"] + 1
    with pytest.raises(
        MTAdaptError, match=r"not the same as the task: raw outputs det /\S+, by up to 1; write --no-check"
    ):
        check_stock_model(config, state, "det", own, weights, (64, 64))


def test_the_task_of_a_model_with_experts_brings_its_router():
    config = run_config(Path("data"))
    state = random_state(config)
    own, weights = export_task(config, state, "sem_seg")
    assert own.model.backbone.tasks == ["sem_seg"] and not [key for key in weights if ".routers.det." in key]
    assert check_stock_model(config, state, "sem_seg", own, weights, (64, 64)) > 0
