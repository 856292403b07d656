"""Every config builds, trains on the tasks that it evaluates, and the big one runs at full size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config, ConfigDict

from mtadapt.datasets.synthetic import write_bdd100k
from mtadapt.engine.hooks.parameter_table_hook import count_flops
from mtadapt.models.moe.layers import ExpertBank
from mtadapt.registry import LIBRARIES, METRICS, MODELS, TRANSFORMS
from tests.command_line import ROOT, numbers, run

PRETRAINING = sorted([*(ROOT / "configs").glob("hvp_*.py"), *(ROOT / "configs/hvp_comparison/pretrain").glob("*.py")])
CONFIGS = sorted({*(ROOT / "configs").glob("*.py")} - {*PRETRAINING})
TRANSFERS = sorted((ROOT / "configs/hvp_comparison").glob("*/random.py"))
COMPARISONS = sorted((ROOT / "configs").glob("het_*_comparison"))
IN1K_COCO_ADE20K = sorted((ROOT / "configs").glob("het_*in1k_coco_ade20k*.py"))


@pytest.fixture(autouse=True)
def _experts_without_values(monkeypatch: pytest.MonkeyPatch):
    """The random numbers of 300 million parameters take seconds."""
    monkeypatch.setattr(ExpertBank, "reset_parameters", lambda bank: None)


def sources_of(dataset: ConfigDict) -> list[tuple[tuple[str, ...], ConfigDict]]:
    """The tasks and the config of every source of a dataset; a dataset that is no mix is one source."""
    if dataset.type != "HeterogeneousDataset":
        return [(tuple(dataset.tasks), dataset)]
    return [(tuple(source.tasks), source.dataset) for source in dataset.sources.values()]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_builds(path: Path, tmp_path: Path):
    config = Config.fromfile(path)
    model = MODELS.build(config.model)
    for task, metric in config.val_evaluator.tasks.items():
        if "ann_file" in metric:  # the metric reads it when it is built
            (dataset,) = (dataset for tasks, dataset in sources_of(config.val_dataloader.dataset) if task in tasks)
            assert metric.ann_file == f"{dataset.data_root}/{dataset.ann_file}"
            metric.ann_file = str(tmp_path / "annotations.json")
            Path(metric.ann_file).write_text('{"images": [], "annotations": [], "categories": []}')
    metric = METRICS.build(config.val_evaluator)
    assert list(model.tasks) == list(metric.metrics)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        sources = sources_of(loader.dataset)
        assert sum((tasks for tasks, _ in sources), ()) == tuple(model.tasks)
        for _, dataset in sources:
            library = dataset.type.split(".")[0]
            for transform in dataset.pipeline:
                TRANSFORMS.build(dict(transform, _scope_=library if library in LIBRARIES else "mtadapt"))
    train, test = (sources_of(loader.dataset) for loader in (config.train_dataloader, config.test_dataloader))
    assert [dataset.data_root for _, dataset in train] == [dataset.data_root for _, dataset in test]
    assert str(config.filename).rsplit("/", 1)[-1] in path.read_text(), "the docstring is the command"


@pytest.mark.parametrize("path", PRETRAINING, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_pretraining_builds(path: Path):
    """The branches get what their pipelines make."""
    config = Config.fromfile(path)
    model = MODELS.build(config.model)
    for metric in config.val_evaluator:
        METRICS.build(metric)
    for loader in (config.train_dataloader, config.val_dataloader, config.test_dataloader):
        for source in loader.dataset.sources.values():
            assert source.tasks == dict(mlc="label") and source.dataset.labels == config.labels
            made = {step.type: TRANSFORMS.build(dict(step, _scope_="mtadapt")) for step in source.dataset.pipeline}
            masks = next(step for step in source.dataset.pipeline if step.type == "MaskPatches")
            image = np.zeros((masks.input_size, masks.input_size, 3), np.uint8)
            size = getattr(model.backbone, "patch_resolution", (40, 40))
            assert made["MaskPatches"].transform(dict(img=image, img_id=0))["mask"].shape == tuple(size)
            if loader is config.train_dataloader:
                assert source.dataset.pipeline[1].key
    assert str(config.filename).rsplit("/", 1)[-1] in path.read_text(), "the docstring is the command"
    assert [part.type for part in config.custom_hooks].count("NonFiniteHook") == 1


@pytest.mark.parametrize("path", TRANSFERS, ids=lambda path: path.parent.name)
def test_transfers_differ_in_the_checkpoint_alone(path: Path):
    base = Config.fromfile(path)
    assert base.checkpoint is None
    for other in (ROOT / "configs/hvp_comparison/pretrain").glob("*.py"):
        config = Config.fromfile(path.with_name(other.name))
        assert config.checkpoint == f"work_dirs/hvp_comparison/pretrain/{other.stem}/seed0"
        assert {**config, "checkpoint": None} == {**base}


def test_pretrainings_that_are_compared_cost_the_same():
    """Forward passes of the backbone: labels and masked images 3 a step, contrast 1 more for its keys."""
    for path in (ROOT / "configs/hvp_comparison/pretrain").glob("*.py"):
        config = Config.fromfile(path)
        model = config.model
        unmasked = 3 if model.multi_label or model.contrastive else 0
        cost = unmasked + (3 if model.masked_image else 0) + (1 if model.contrastive else 0)
        assert cost * config.train_cfg.max_iters == 2100, path.stem
        assert config.param_scheduler[1].T_max == config.train_cfg.max_iters


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


@pytest.mark.parametrize("path", IN1K_COCO_ADE20K, ids=lambda path: path.stem)
def test_the_recipe_of_the_heterogeneous_paper_is_kept(path: Path):
    config = Config.fromfile(path)
    batches = config.train_dataloader.batch_sampler
    assert batches.mode == "alternate" and batches.weights == dict(in1k=15, coco=10, ade20k=5)
    assert batches.batch_size == dict(in1k=64, coco=2, ade20k=2)
    assert config.model.loss_weights == dict(cls=1.0, det=0.6, sem_seg=0.2)
    assert config.optim_wrapper.optimizer == dict(type="mmpretrain.Lamb", lr=0.004, weight_decay=0.05)
    assert config.optim_wrapper.clip_grad.max_norm == 0.1
    (schedule,) = config.param_scheduler
    assert schedule.eta_max == 0.004 and schedule.total_steps == config.train_cfg.max_iters
    tasks = config.model.tasks
    heads = tasks.cls.head, tasks.det.bbox_head, tasks.sem_seg.decode_head, tasks.sem_seg.auxiliary_head
    assert [head.num_classes for head in heads] == [1000, 80, 150, 150]
    names = [transform.type for transform in config.test_dataloader.dataset.sources.ade20k.dataset.pipeline]
    assert names.index("LoadAnnotations") > names.index("Resize"), "ground truth keeps its size"


@pytest.mark.parametrize(
    ("arch", "num_experts", "layers"),
    [("tiny", 64, [*range(12)]), ("small", 32, [*range(24)]), ("base", 16, [*range(1, 24, 2)])],
)
def test_experts_of_the_heterogeneous_paper_cost_no_more_than_its_dense_twins(
    arch: str, num_experts: int, layers: list[int]
):
    """The twins differ in the experts alone; what these add to the computation is the routers, counted by hand."""
    dense, moe = (
        Config.fromfile(ROOT / f"configs/het_{kind}-{arch[0]}_in1k_coco_ade20k.py") for kind in ("davit", "moe-davit")
    )
    backbone = moe.model.backbone
    assert backbone.arch == arch and backbone.pop("mutual_information") == dict(weight=5e-4)
    experts, tasks = backbone.pop("mlp_experts"), backbone.pop("tasks")
    assert tasks == [*moe.model.tasks] == ["cls", "det", "sem_seg"]
    assert experts.num_experts == num_experts and experts.top_k == 4
    assert moe._cfg_dict == dense._cfg_dict
    plain = MODELS.build(dense.model.backbone)
    routed = MODELS.build(dict(backbone, mlp_experts=experts, tasks=tasks))
    mlps = [
        (stage, f"stages.{stage}.blocks.{block}.{half}_block.ffn")
        for stage, depth in enumerate(plain.depths)
        for block in range(depth)
        for half in ("spatial", "channel")
    ]
    assert [*routed.moe_layers()] == [mlps[layer][1] for layer in layers]
    image = torch.zeros(1, 3, 224, 224)
    flops, routing = sum(count_flops(plain, lambda: plain(image)).values()), 0
    parameters, unused = sum(each.numel() for each in routed.parameters()), 0
    for layer in layers:
        stage = mlps[layer][0]
        width, tokens = plain.num_features[stage], (224 // 4 // 2**stage) ** 2
        router = width * (width // 4) + (width // 4) * num_experts
        routing += 2 * tokens * router
        unused += (num_experts - 4) * (2 * width * width + 2 * width)
        unused += 2 * (router + width // 4 + num_experts)
    assert sum(count_flops(routed, lambda: routed(image, "det")).values()) == flops + routing
    millions = [each / 1e6 for each in (sum(each.numel() for each in plain.parameters()), parameters - unused)]
    row = [f"{millions[0]:.1f} M", f"{flops / 1e9:.2f}", f"{parameters / 1e6:.1f} M", f"{millions[1]:.1f} M"]
    table = (ROOT / "docs/moe.md").read_text()
    assert f"| {arch} | {num_experts} | {' | '.join(row)} | {(flops + routing) / 1e9:.2f} |" in table


@pytest.mark.parametrize("folder", COMPARISONS, ids=lambda path: path.name)
def test_single_source_runs_are_equal_parts_of_the_heterogeneous_run(folder: Path):
    """The same model and samples, the same schedule at the same share of the run."""
    mixed = Config.fromfile(folder / "het.py")
    batches, sources = mixed.train_dataloader.batch_sampler, mixed.train_dataloader.dataset.sources
    assert batches.schedule == "round_robin" and mixed.train_cfg.max_iters % len(sources) == 0
    for name, source in sources.items():
        (task,) = source.tasks
        single = Config.fromfile(folder / f"single_{task}.py")
        assert single.train_dataloader.dataset.sources == {name: source}
        assert single.val_dataloader.dataset.sources == {name: mixed.val_dataloader.dataset.sources[name]}
        assert single.train_dataloader.batch_sampler.batch_size == {name: batches.batch_size[name]}
        expected = {**mixed.model, "tasks": {task: mixed.model.tasks[task]}}
        if mixed.model.tasks[task].backbone.get("source") == "backbone":
            expected["neck"] = None
        assert single.model == expected
        assert single.val_evaluator.tasks == {task: mixed.val_evaluator.tasks[task]}
        assert single.optim_wrapper == mixed.optim_wrapper
        assert single.train_cfg.max_iters * len(sources) == mixed.train_cfg.max_iters
        for own, other in zip(single.param_scheduler, mixed.param_scheduler, strict=True):
            for key, value in other.items():
                scale = len(sources) if key in ("end", "T_max") else 1
                assert own[key] == (value // scale if scale > 1 else value)


def test_metafile_names_what_exists():
    """Every model has a collection and a config, and what is downstream of it is a model."""
    index = yaml.safe_load((ROOT / "model-index.yml").read_text())
    for name in index["Import"]:
        content = yaml.safe_load((ROOT / name).read_text())
        for collection in content["Collections"]:
            assert (ROOT / collection["README"]).is_file()
        models = {model["Name"]: model for model in content["Models"]}
        assert len(models) == len(content["Models"])
        for model in models.values():
            assert model["In Collection"] in {collection["Name"] for collection in content["Collections"]}
            assert (ROOT / model["Config"]).is_file()
            assert set(model.get("Downstream", ())) <= set(models)
        assert any(model.get("Downstream") for model in models.values())


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
