# Painted scenes as three single-task datasets in the layouts of ImageNet, COCO and ADE20K; this command writes them:
#   python tools/dataset_converters/synthetic_heterogeneous.py data/synthetic_heterogeneous \
#       --train 400 --val 80 --size 320x192 --seed 0
crops = dict(
    type="mmpretrain.ImageNet",
    data_root="data/synthetic_heterogeneous/imagenet",
    metainfo=dict(
        classes=("bicycle", "bus", "car", "motorcycle", "pedestrian", "traffic_light", "traffic_sign", "truck")
    ),
)
boxes = dict(
    type="mmdet.CocoDataset",
    data_root="data/synthetic_heterogeneous/coco",
    metainfo=dict(
        classes=(
            "pedestrian",
            "rider",
            "car",
            "truck",
            "bus",
            "train",
            "motorcycle",
            "bicycle",
            "traffic light",
            "traffic sign",
        )
    ),
)
maps = dict(
    type="mmseg.BaseSegDataset",
    data_root="data/synthetic_heterogeneous/ade20k",
    img_suffix=".jpg",
    seg_map_suffix=".png",
    reduce_zero_label=True,
    metainfo=dict(
        classes=(
            "road",
            "sidewalk",
            "building",
            "wall",
            "fence",
            "pole",
            "traffic light",
            "traffic sign",
            "vegetation",
            "terrain",
            "sky",
            "person",
            "rider",
            "car",
            "truck",
            "bus",
            "train",
            "motorcycle",
            "bicycle",
        )
    ),
)
load = dict(type="LoadImageFromFile")
sources = dict(
    imagenet=dict(
        tasks=["cls"],
        dataset=dict(
            **crops,
            split="train",
            pipeline=[
                load,
                dict(type="RandomResizedCrop", scale=64, crop_ratio_range=(0.5, 1.0)),
                dict(type="RandomFlip", prob=0.5, direction="horizontal"),
                dict(type="PackInputs"),
            ],
        ),
    ),
    coco=dict(
        tasks=["det"],
        dataset=dict(
            **boxes,
            ann_file="annotations/instances_train2017.json",
            data_prefix=dict(img="train2017/"),
            filter_cfg=dict(filter_empty_gt=True, min_size=32),
            pipeline=[
                load,
                dict(type="LoadAnnotations", with_bbox=True),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PackDetInputs"),
            ],
        ),
    ),
    ade20k=dict(
        tasks=["sem_seg"],
        dataset=dict(
            **maps,
            data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
            pipeline=[
                load,
                dict(type="LoadAnnotations"),
                dict(type="RandomCrop", crop_size=(160, 224), cat_max_ratio=0.75),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PackSegInputs"),
            ],
        ),
    ),
)
val_sources = dict(
    imagenet=dict(
        tasks=["cls"],
        dataset=dict(
            **crops,
            split="val",
            test_mode=True,
            pipeline=[load, dict(type="Resize", scale=(64, 64)), dict(type="PackInputs")],
        ),
    ),
    coco=dict(
        tasks=["det"],
        dataset=dict(
            **boxes,
            ann_file="annotations/instances_val2017.json",
            data_prefix=dict(img="val2017/"),
            test_mode=True,
            pipeline=[load, dict(type="LoadAnnotations", with_bbox=True), dict(type="PackDetInputs")],
        ),
    ),
    ade20k=dict(
        tasks=["sem_seg"],
        dataset=dict(
            **maps,
            data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
            test_mode=True,
            pipeline=[load, dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
        ),
    ),
)

# A step holds one source; they take turns.
train_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    batch_size=1,  # the batch sampler's instead
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(type="HeterogeneousDataset", sources=sources),
    batch_sampler=dict(
        type="HeterogeneousBatchSampler",
        mode="alternate",
        schedule="round_robin",
        batch_size=dict(imagenet=32, coco=4, ade20k=4),
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(type="HeterogeneousDataset", sources=val_sources),
)
test_dataloader = val_dataloader

val_evaluator = dict(
    type="MultiTaskMetric",
    tasks=dict(
        cls=dict(type="mmpretrain.Accuracy", topk=(1,)),
        det=dict(
            type="mmdet.CocoMetric",
            ann_file="data/synthetic_heterogeneous/coco/annotations/instances_val2017.json",
            metric="bbox",
        ),
        sem_seg=dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"]),
    ),
)
test_evaluator = val_evaluator
