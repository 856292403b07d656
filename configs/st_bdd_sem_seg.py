"""Semantic segmentation alone on BDD100K, R-50 Semantic FPN, the public recipe: scales 0.5 to 2, crops of 1024x512.

bash tools/dist_train.sh configs/st_bdd_sem_seg.py 8
"""

_base_ = [
    "_base_/datasets/bdd100k.py",
    "_base_/models/mt_r50_fpn.py",
    "_base_/schedules/iters_40k.py",
    "_base_/default_runtime.py",
]
tasks = ("sem_seg",)
model = dict(tasks=dict(_delete_=True, sem_seg={{_base_.sem_seg}}))
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadMultiTaskAnnotations"),
    dict(type="RandomResize", scale=(1280, 720), ratio_range=(0.5, 2.0), keep_ratio=True, resize_type="mmdet.Resize"),
    dict(type="mmseg.RandomCrop", crop_size=(512, 1024), cat_max_ratio=0.75),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="PackMultiTaskInputs"),
]
train_dataloader = dict(
    sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=True),
    dataset=dict(tasks=tasks, label_tasks=("det", "sem_seg", "drivable"), pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(tasks=tasks))
test_dataloader = val_dataloader
val_evaluator = dict(tasks=dict(_delete_=True, sem_seg=dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"])))
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=4000))
log_processor = dict(by_epoch=False)
