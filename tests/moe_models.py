"""Small models with experts for tests: their run on random images, with random routers and statistics."""

from __future__ import annotations

from pathlib import Path

import torch
from mmengine.config import Config

from mtadapt.registry import MODELS
from tests import models
from tests.models import NECK, NORMALISE, as_task
from tests.test_datasets.sources import trio, write_trio

TASKS = dict(cls="in1k", det="coco", sem_seg="ade20k")
BACKBONE = dict(
    type="MoEDaViT",
    arch=dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 2, 4]),
    tasks=["cls", "det", "sem_seg"],
    mlp_experts=dict(num_experts=5, top_k=2),
    drop_path_rate=0.0,
)


def heads() -> dict:
    """A classifier and a segmentor with batch norm on the backbone's features, a detector on the shared neck's."""
    det = models.faster_rcnn()
    det.roi_head.bbox_head.num_classes = 3
    return dict(cls=as_task(models.classifier(2)), det=as_task(det), sem_seg=as_task(models.uper_head(2)))


def run_config(data: Path, tasks: tuple[str, ...] = tuple(TASKS), steps: int = 6, **backbone) -> Config:
    """A run on random images of 96x72; write them with :func:`write_data`."""
    sources = {TASKS[task]: trio(data)[TASKS[task]] for task in tasks}
    if "in1k" in sources:
        sources["in1k"]["dataset"]["pipeline"][1]["scale"] = 64
    if "ade20k" in sources:
        sources["ade20k"]["dataset"]["pipeline"][2]["crop_size"] = (64, 64)
    val_sources = Config(dict(sources=sources)).to_dict()["sources"]
    for task in tasks:
        pipeline = val_sources[TASKS[task]]["dataset"]["pipeline"]
        pipeline[:] = [step for step in pipeline if not step["type"].startswith("Random")]
        if task == "cls":
            pipeline.insert(1, dict(type="Resize", scale=(64, 64)))
    metrics = dict(
        cls=dict(type="mmpretrain.Accuracy", topk=(1,)),
        det=dict(type="mmdet.CocoMetric", ann_file=str(data / "coco/train.json"), metric="bbox"),
        sem_seg=dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"]),
    )
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(type="HeterogeneousDataset", sources=val_sources),
    )
    evaluator = dict(type="MultiTaskMetric", tasks={task: metrics[task] for task in tasks})
    return Config(
        dict(
            default_scope="mtadapt",
            custom_imports=dict(imports=["mtadapt"], allow_failed_imports=False),
            env_cfg=dict(dist_cfg=dict(backend="gloo"), mp_cfg=dict(opencv_num_threads=0)),
            randomness=dict(seed=3),
            default_hooks=dict(
                checkpoint=dict(type="ResumableCheckpointHook", by_epoch=False, interval=steps),
                logger=dict(type="LoggerHook", interval=1),
            ),
            custom_hooks=[dict(type="CheckpointMatchHook"), dict(type="AbsentTaskHook")],
            log_processor=dict(by_epoch=False, window_size=1),
            model=dict(
                type="MultiTaskModel",
                data_preprocessor=dict(type="MultiTaskDataPreprocessor", **NORMALISE),
                backbone=dict(BACKBONE, tasks=[*tasks], **backbone),
                neck=NECK,
                tasks={task: heads()[task] for task in tasks},
            ),
            train_dataloader=dict(
                num_workers=0,
                batch_size=1,
                sampler=dict(type="InfiniteSampler"),
                dataset=dict(type="HeterogeneousDataset", sources=sources),
                batch_sampler=dict(
                    type="HeterogeneousBatchSampler",
                    schedule="round_robin",
                    batch_size={TASKS[task]: 2 for task in tasks},
                ),
            ),
            train_cfg=dict(type="IterBasedTrainLoop", max_iters=steps, val_interval=steps),
            val_dataloader=loader,
            val_cfg=dict(type="ValLoop"),
            val_evaluator=evaluator,
            test_dataloader=loader,
            test_cfg=dict(type="TestLoop"),
            test_evaluator=evaluator,
            optim_wrapper=dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=1e-2)),
            param_scheduler=[dict(type="ConstantLR", factor=0.5, by_epoch=False, begin=0, end=2)],
        )
    )


def write_data(folder: Path) -> Path:
    """Random images of three sources."""
    write_trio(folder, images=4, size=(96, 72))
    return folder


def random_state(config: Config, seed: int = 0) -> dict[str, torch.Tensor]:
    """Weights of a model whose routers differ, with statistics of the experts that add up."""
    torch.manual_seed(seed)
    model = MODELS.build(config.model)
    state = model.state_dict()
    for key, value in state.items():
        if ".routers." in key:
            value.normal_(std=0.5)
        elif key.endswith(("usage.load", "usage.probability")):
            value.copy_(torch.rand_like(value).softmax(-1))
        elif key.endswith("usage.updates"):
            value.fill_(3)
    return {key: value.clone() for key, value in state.items()}
