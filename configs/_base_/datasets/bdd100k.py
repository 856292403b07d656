# BDD100K in its official layout; see docs/prepare_bdd100k.md. Images are 1280x720.
data_root = "data/bdd100k"
tasks = ("det", "sem_seg", "drivable")

train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadMultiTaskAnnotations"),
    dict(type="mmdet.Resize", scale=(1280, 720), keep_ratio=True),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="PackMultiTaskInputs"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="mmdet.Resize", scale=(1280, 720), keep_ratio=True),
    dict(type="LoadMultiTaskAnnotations"),
    dict(type="PackMultiTaskInputs"),
]

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="BDD100KDataset",
        data_root=data_root,
        split="train",
        tasks=tasks,
        label_setting="full",
        on_error="skip",
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="BDD100KDataset",
        data_root=data_root,
        split="val",
        tasks=tasks,
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="MultiTaskMetric",
    tasks=dict(
        det=dict(type="mmdet.CocoMetric", metric="bbox", proposal_nums=(1, 10, 100)),
        sem_seg=dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"]),
        drivable=dict(type="DrivableMetric"),
    ),
)
test_evaluator = val_evaluator
