# ImageNet-1k, COCO and ADE20K in their public layouts: data/imagenet/{train,val}/<class>, data/coco and
# data/ade/ADEChallengeData2016. Each source has its library's usual pipeline.
sources = dict(
    in1k=dict(
        tasks=["cls"],
        dataset=dict(
            type="mmpretrain.ImageNet",
            data_root="data/imagenet",
            split="train",
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="RandomResizedCrop", scale=224),
                dict(type="RandomFlip", prob=0.5, direction="horizontal"),
                dict(type="PackInputs"),
            ],
        ),
    ),
    coco=dict(
        tasks=["det"],
        dataset=dict(
            type="mmdet.CocoDataset",
            data_root="data/coco",
            ann_file="annotations/instances_train2017.json",
            data_prefix=dict(img="train2017/"),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="LoadAnnotations", with_bbox=True),
                dict(type="Resize", scale=(1333, 800), keep_ratio=True),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PackDetInputs"),
            ],
        ),
    ),
    ade20k=dict(
        tasks=["sem_seg"],
        dataset=dict(
            type="mmseg.ADE20KDataset",
            data_root="data/ade/ADEChallengeData2016",
            data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="LoadAnnotations", reduce_zero_label=True),
                dict(type="RandomResize", scale=(2048, 512), ratio_range=(0.5, 2.0), keep_ratio=True),
                dict(type="RandomCrop", crop_size=(512, 512), cat_max_ratio=0.75),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PhotoMetricDistortion"),
                dict(type="PackSegInputs"),
            ],
        ),
    ),
)
val_sources = dict(
    in1k=dict(
        tasks=["cls"],
        dataset=dict(
            type="mmpretrain.ImageNet",
            data_root="data/imagenet",
            split="val",
            test_mode=True,
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="ResizeEdge", scale=256, edge="short"),
                dict(type="CenterCrop", crop_size=224),
                dict(type="PackInputs"),
            ],
        ),
    ),
    coco=dict(
        tasks=["det"],
        dataset=dict(
            type="mmdet.CocoDataset",
            data_root="data/coco",
            ann_file="annotations/instances_val2017.json",
            data_prefix=dict(img="val2017/"),
            test_mode=True,
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="Resize", scale=(1333, 800), keep_ratio=True),
                dict(type="LoadAnnotations", with_bbox=True),
                dict(type="PackDetInputs"),
            ],
        ),
    ),
    ade20k=dict(
        tasks=["sem_seg"],
        dataset=dict(
            type="mmseg.ADE20KDataset",
            data_root="data/ade/ADEChallengeData2016",
            data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
            test_mode=True,
            pipeline=[
                dict(type="LoadImageFromFile"),
                dict(type="Resize", scale=(2048, 512), keep_ratio=True),
                dict(type="LoadAnnotations", reduce_zero_label=True),
                dict(type="PackSegInputs"),
            ],
        ),
    ),
)

# A step holds one source, drawn with these weights; batch sizes are those of one GPU.
train_dataloader = dict(
    num_workers=8,
    persistent_workers=True,
    batch_size=1,  # the batch sampler's instead
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(type="HeterogeneousDataset", sources=sources),
    batch_sampler=dict(
        type="HeterogeneousBatchSampler",
        mode="alternate",
        weights=dict(in1k=15, coco=10, ade20k=5),
        batch_size=dict(in1k=64, coco=2, ade20k=2),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="HeterogeneousDataset", sources=val_sources),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="MultiTaskMetric",
    tasks=dict(
        cls=dict(type="mmpretrain.Accuracy", topk=(1, 5)),
        det=dict(type="mmdet.CocoMetric", ann_file="data/coco/annotations/instances_val2017.json", metric="bbox"),
        sem_seg=dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"]),
    ),
)
test_evaluator = val_evaluator
