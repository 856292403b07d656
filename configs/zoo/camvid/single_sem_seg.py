"""Baseline of sem_seg on CamVid at 240x180: mmseg's own EncoderDecoder with the multi-task config's settings.

python tools/train.py configs/zoo/camvid/single_sem_seg.py
"""

_base_ = "finetune.py"
default_scope = "mmseg"
tasks = ("sem_seg",)
train_pipeline = [
    dict(type="mtadapt.LoadImage"),
    dict(type="mtadapt.LoadMultiTaskAnnotations"),
    dict(type="RandomResize", scale=(240, 180), ratio_range=(0.75, 1.5), keep_ratio=True, resize_type="mmdet.Resize"),
    dict(type="mmdet.RandomCrop", crop_type="absolute", crop_size=(224, 160), allow_negative_crop=True),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="mmseg.PackSegInputs"),
]
test_pipeline = [
    dict(type="mtadapt.LoadImage"),
    dict(type="mmdet.Resize", scale=(240, 180), keep_ratio=True),
    dict(type="mtadapt.LoadMultiTaskAnnotations"),
    dict(type="mmseg.PackSegInputs"),
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
val_evaluator = dict(_delete_=True, type="mmseg.IoUMetric", prefix="sem_seg", iou_metrics=["mIoU"])
test_evaluator = val_evaluator
model = dict(
    _delete_=True,
    type="mmseg.EncoderDecoder",
    data_preprocessor=dict(
        type="mmseg.SegDataPreProcessor",
        mean=[127.0, 127.0, 127.0],
        std=[128.0, 128.0, 128.0],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=32,
        test_cfg=dict(size_divisor=32),
    ),
    backbone=dict(type="mtadapt.EfficientNetLite0", pretrained="package", norm_eval=False),
    neck={{_base_.model.neck}},
    decode_head={{_base_.model.tasks.sem_seg.decode_head}},
    train_cfg={{_base_.model.tasks.sem_seg.train_cfg}},
    test_cfg={{_base_.model.tasks.sem_seg.test_cfg}},
)
default_hooks = dict(
    checkpoint=dict(type="mtadapt.ResumableCheckpointHook"),
    visualization=dict(_delete_=True, type="SegVisualizationHook"),
)
custom_hooks = [
    dict(type="mtadapt.CheckpointMatchHook"),
    dict(type="mtadapt.ParameterTableHook"),
    dict(type="mtadapt.MetricTableHook"),
    dict(type="mtadapt.NonFiniteHook"),
    dict(type="mtadapt.RankHeartbeatHook"),
]
visualizer = dict(_delete_=True, type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")])
