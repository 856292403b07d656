"""The table of parameters and computation against closed forms, and that making it changes nothing."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torchvision
from mmengine.config import ConfigDict
from mmengine.dist import utils
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import Dataset

from mtadapt.engine.hooks import ParameterTableHook
from mtadapt.engine.hooks.parameter_table_hook import count_flops, parameter_table
from mtadapt.models import MultiScaleAdapter
from mtadapt.registry import MODELS
from tests import models
from tests.models import BACKBONE, NECK, batch, multi_task_model

BACKBONE_FLOPS = 2 * 3 * 8 * 9 * 12 * 10
HEAD_FLOPS = 2 * 8 * 5 * 12 * 10


class Head(nn.Module):
    """Called by a method of its own, and not through its layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 5, 1)

    def score(self, feats: torch.Tensor) -> torch.Tensor:
        return nn.functional.conv2d(feats, self.conv.weight, self.conv.bias)


class Small(BaseModel):
    """A 3x3 convolution with padding, two norms, dropout, an adapter in the backbone, and a head."""

    def __init__(self) -> None:
        super().__init__(dict(type="ImgDataPreprocessor"))
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.Dropout(0.5))
        self.neck = nn.Sequential(nn.BatchNorm2d(8), MultiScaleAdapter(8, num_levels=1, ratio=2, conv="dense"))
        self.tasks = nn.ModuleDict(dict(first=Head(), second=Head()))
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, inputs: torch.Tensor, data_samples: object = None, mode: str = "tensor") -> object:
        norm, adapter = self.neck
        feats = adapter([norm(self.backbone(inputs))])[0]
        scores = [head.score(feats) for head in self.tasks.values()]
        if mode == "loss":
            return dict(loss=sum(score.square().mean() for score in scores) * self.scale.mean())
        torch.rand(1)
        return scores


def table_of(text: str) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return {row[0]: row[1:] for row in rows[1:]}


def run_hook(model: nn.Module, data: dict, caplog: pytest.LogCaptureFixture, **runner: object) -> str:
    caplog.clear()
    logger = logging.getLogger("table")
    with caplog.at_level(logging.INFO):
        ParameterTableHook().before_train_iter(SimpleNamespace(model=model, logger=logger, **runner), 0, data)
    return "\n".join(record.message for record in caplog.records)


def small_batch() -> dict:
    return dict(inputs=[torch.ones(3, 10, 12), torch.ones(3, 20, 24)])


def test_counts_and_flops_are_those_of_closed_forms(caplog: pytest.LogCaptureFixture):
    model = Small().train()
    model.backbone.requires_grad_(False)
    adapter = 8 * 4 + 4 + 9 * 16 + 4 + 4 * 8 + 8
    text = run_hook(model, small_batch(), caplog)
    assert text.startswith("Parameters, and computation for an image of 12x10\n")
    assert table_of(text) == {
        "Small": ["3", "3", "0", "100.0", "0.0000"],
        "backbone": [str(216 + 16), "0", "232", "0.0", "0.0001"],
        "neck": ["16", "16", "0", "100.0", "0.0000"],
        "neck (adapters)": [str(adapter), str(adapter), "0", "100.0", "0.0000"],
        "tasks.first": ["45", "45", "0", "100.0", "0.0000"],
        "tasks.second": ["45", "45", "0", "100.0", "0.0000"],
        "total": [str(341 + adapter), str(109 + adapter), "232", "58.9", "0.0001"],
    }
    image = torch.zeros(1, 3, 10, 12)
    assert count_flops(model, lambda: model(image)) == {
        "backbone": BACKBONE_FLOPS,
        "neck (adapters)": 2 * (8 * 4 + 9 * 16 + 4 * 8) * 12 * 10,
        "tasks.first": HEAD_FLOPS,
        "tasks.second": HEAD_FLOPS,
    }


def test_resnet18_is_that_of_the_paper():
    """Parameters and multiply-adds as torchvision lists them."""
    expected = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta
    model = MODELS.build(
        ConfigDict(
            _scope_="mmpretrain",
            type="ImageClassifier",
            backbone=dict(type="ResNet", depth=18),
            neck=dict(type="GlobalAveragePooling"),
            head=dict(type="LinearClsHead", num_classes=1000, in_channels=512),
        )
    )
    flops = count_flops(model, lambda: model(torch.zeros(1, 3, 224, 224), [DataSample()], mode="predict"))
    assert flops["head"] == 2 * 512 * 1000
    assert sum(flops.values()) / 2e9 == pytest.approx(expected["_ops"], abs=5e-4)
    total = table_of(parameter_table(model, flops))["total"]
    assert total[0] == f"{expected['num_params']:,}" == "11,689,512"
    assert total[-1] == "3.63"


def test_attention_is_counted():
    """A block of a ViT: qkv, projection, FFN, and the two products of L x L tokens."""
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=32)
    backbone = dict(type="mmpretrain.VisionTransformer", arch=arch, img_size=32, patch_size=8, with_cls_token=False)
    lora = dict(type="LoRA", targets="*.qkv", rank=4)
    model = nn.Sequential()
    model.add_module(
        "backbone",
        MODELS.build(
            dict(type="mtadapt.AdaptedBackbone", backbone=dict(backbone, out_type="avg_featmap"), adapters=[lora])
        ),
    )
    flops = count_flops(model, lambda: model(torch.zeros(1, 3, 32, 32)))
    block = 16 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * 16 * 16 * 16
    patches = 16 * 16 * 3 * 64
    assert flops == {"backbone": 2 * (patches + block), "backbone (adapters)": 2 * 16 * (16 * 4 + 4 * 48)}


def test_multi_task_model(caplog: pytest.LogCaptureFixture):
    model = multi_task_model(det=models.faster_rcnn(), sem_seg=models.fpn_head(), cls=models.classifier()).train()
    data = batch([("det", "sem_seg", "cls")] * 2, [(96, 128), (64, 64)])
    table = table_of(run_hook(model, data, caplog))
    assert list(table) == ["backbone", "neck", "tasks.det", "tasks.sem_seg", "tasks.cls", "total"]
    for name, row in table.items():
        part = model if name == "total" else model.get_submodule(name)
        assert row[0] == f"{sum(parameter.numel() for parameter in part.parameters()):,}", name
    assert all(float(row[-1]) > 0 for name, row in table.items() if name != "tasks.cls")
    flops = count_flops(model, lambda: model(torch.zeros(1, 3, 96, 128), mode="predict"))
    assert flops["tasks.cls"] == 2 * 64 * 5


@pytest.mark.parametrize("library", ["mmdet", "mmseg"])
def test_stock_models(library: str, caplog: pytest.LogCaptureFixture):
    task = "det" if library == "mmdet" else "sem_seg"
    config = models.faster_rcnn() if library == "mmdet" else models.fpn_head()
    preprocessor = (
        dict(type="DetDataPreprocessor") if library == "mmdet" else dict(type="SegDataPreProcessor", size=(96, 128))
    )
    config.update(backbone=dict(BACKBONE, type="mmdet.ResNet"), neck=dict(NECK, type="mmdet.FPN"))
    with DefaultScope.overwrite_default_scope(library):
        model = MODELS.build(ConfigDict(config, data_preprocessor=preprocessor)).train()
    data = batch([(task,)])
    data["data_samples"] = [sample.task(task) for sample in data["data_samples"]]
    text = run_hook(model, data, caplog)
    assert text.startswith("Parameters, and computation for an image of 128x96\n")
    heads = ["rpn_head", "roi_head"] if library == "mmdet" else ["decode_head"]
    table = table_of(text)
    assert list(table) == ["backbone", "neck", *heads, "total"]
    assert all(float(row[-1]) > 0 for row in table.values())


def state_of(model: nn.Module) -> dict:
    return dict(
        weights={name: value.clone() for name, value in model.state_dict().items()},
        modes={name: module.training for name, module in model.named_modules()},
        gradients={name: parameter.requires_grad for name, parameter in model.named_parameters()},
        hooks={name: len(module._forward_hooks) for name, module in model.named_modules()},
        random=torch.get_rng_state(),
    )


def test_nothing_is_changed(caplog: pytest.LogCaptureFixture):
    model = Small().train()
    model.backbone[1].eval()
    model.tasks["first"].training = False
    model.neck.requires_grad_(False)
    data = small_batch()
    before = state_of(model)
    run_hook(model, data, caplog)
    after = state_of(model)
    for key in ("modes", "gradients", "hooks"):
        assert after[key] == before[key]
    assert torch.equal(after["random"], before["random"])
    for name, value in before["weights"].items():
        assert torch.equal(after["weights"][name], value), name
    assert torch.equal(data["inputs"][0], torch.ones(3, 10, 12))


def test_shared_parameters_are_counted_once():
    model = Small()
    model.tasks["second"].conv.weight = model.tasks["first"].conv.weight
    table = table_of(parameter_table(model))
    assert (table["tasks.first"][0], table["tasks.second"][0]) == ("45", "5")
    assert table["total"][0].replace(",", "") == str(sum(parameter.numel() for parameter in model.parameters()))
    assert {row[-1] for row in table.values()} == {"-"}


def test_wrapped_model(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    """Under DistributedDataParallel the table is the same, and only the first process writes it."""
    model = Small()
    expected = run_hook(copy.deepcopy(model), small_batch(), caplog)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        wrapped = DistributedDataParallel(model)
        assert run_hook(wrapped, small_batch(), caplog) == expected
        monkeypatch.setattr(utils, "is_main_process", lambda group=None: False)
        assert run_hook(wrapped, small_batch(), caplog) == ""
    finally:
        dist.destroy_process_group()


def test_model_that_cannot_predict(caplog: pytest.LogCaptureFixture):
    text = run_hook(Small(), dict(inputs=[torch.ones(4, 10, 12)]), caplog)
    warning, title = text.splitlines()[:2]
    assert warning.startswith(
        "ParameterTableHook: no FLOPs; the prediction on a blank image fails: RuntimeError: Given "
    )
    assert title == "Parameters"
    assert {row[-1] for row in table_of(text).values()} == {"-"}


class Images(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        return dict(inputs=torch.rand(3, 10, 12, generator=generator), data_samples=None)


def train(folder: Path, hooks: list[dict]) -> tuple[dict, str]:
    runner = Runner(
        model=Small(),
        work_dir=str(folder),
        train_dataloader=dict(
            dataset=Images(), batch_size=2, sampler=dict(type="DefaultSampler"), collate_fn=dict(type="pseudo_collate")
        ),
        train_cfg=dict(by_epoch=True, max_epochs=2),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(checkpoint=None),
        custom_hooks=hooks,
        randomness=dict(seed=0),
        default_scope="mtadapt",
        experiment_name=folder.name,
    )
    runner.train()
    return runner.model.state_dict(), next(folder.glob("*/*.log")).read_text()


def test_training_is_that_without_the_hook(tmp_path: Path):
    """Dropout draws the same numbers, and the table comes once."""
    torch.manual_seed(0)
    weights, log = train(tmp_path / "with", [dict(type="ParameterTableHook")])
    torch.manual_seed(0)
    expected, _ = train(tmp_path / "without", [])
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
    assert log.count("Parameters, and computation for an image of 12x10") == 1
