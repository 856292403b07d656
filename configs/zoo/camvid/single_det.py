"""Baseline of det on CamVid at 240x180: mmdet's own Faster R-CNN with the multi-task config's settings.

python tools/train.py configs/zoo/camvid/single_det.py
"""

_base_ = "finetune.py"
default_scope = "mmdet"
tasks = ("det",)
train_pipeline = [
    dict(type="mtadapt.LoadImage"),
    dict(type="mtadapt.LoadMultiTaskAnnotations"),
    dict(type="RandomResize", scale=(240, 180), ratio_range=(0.75, 1.5), keep_ratio=True, resize_type="mmdet.Resize"),
    dict(type="mmdet.RandomCrop", crop_type="absolute", crop_size=(224, 160), allow_negative_crop=True),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmdet.PackDetInputs"),
]
test_pipeline = [
    dict(type="mtadapt.LoadImage"),
    dict(type="mmdet.Resize", scale=(240, 180), keep_ratio=True),
    dict(type="mtadapt.LoadMultiTaskAnnotations"),
    dict(
        type="mmdet.PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor", "instances"),
    ),
]
train_dataloader = dict(
    dataset=dict(
        type="mtadapt.BDD100KDataset",
        tasks=tasks,
        # Whose images a disjoint label setting shares out.
        label_tasks=("det", "sem_seg", "drivable"),
        pipeline=train_pipeline,
    )
)
val_dataloader = dict(dataset=dict(type="mtadapt.BDD100KDataset", tasks=tasks, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type="mmdet.CocoMetric", prefix="det", metric="bbox", proposal_nums=(1, 10, 100))
test_evaluator = val_evaluator
model = dict(
    _delete_=True,
    type="mmdet.FasterRCNN",
    data_preprocessor=dict(
        type="mmdet.DetDataPreprocessor",
        mean=[127.0, 127.0, 127.0],
        std=[128.0, 128.0, 128.0],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(type="mtadapt.EfficientNetLite0", pretrained="package", norm_eval=False),
    neck={{_base_.model.neck}},
    rpn_head={{_base_.model.tasks.det.rpn_head}},
    roi_head={{_base_.model.tasks.det.roi_head}},
    train_cfg={{_base_.model.tasks.det.train_cfg}},
    test_cfg={{_base_.model.tasks.det.test_cfg}},
)
default_hooks = dict(
    checkpoint=dict(type="mtadapt.ResumableCheckpointHook"),
    visualization=dict(_delete_=True, type="DetVisualizationHook"),
)
custom_hooks = [
    dict(type="mtadapt.CheckpointMatchHook"),
    dict(type="mtadapt.ParameterTableHook"),
    dict(type="mtadapt.MetricTableHook"),
    dict(type="mtadapt.NonFiniteHook"),
    dict(type="mtadapt.RankHeartbeatHook"),
]
visualizer = dict(_delete_=True, type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
