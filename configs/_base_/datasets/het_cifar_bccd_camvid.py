# A real trio, one task each: CIFAR-10 in class folders (enlarged to 64x64), BCCD's blood cells as COCO JSON (320x240),
# CamVid with its 11-class masks (240x180) in the folders of the SegNet tutorial: train, trainannot, val and valannot.
images = dict(type="mmpretrain.CustomDataset", data_root="data/cifar10", with_label=True)
boxes = dict(type="mmdet.CocoDataset", data_root="data/bccd", metainfo=dict(classes=("RBC", "WBC", "Platelets")))
maps = dict(
    type="mmseg.BaseSegDataset",
    data_root="data/camvid_segnet",
    img_suffix=".jpg",
    seg_map_suffix=".png",
    metainfo=dict(
        classes=(
            "sky",
            "building",
            "pole",
            "road",
            "pavement",
            "tree",
            "sign",
            "fence",
            "car",
            "pedestrian",
            "bicyclist",
        )
    ),
)
load = dict(type="LoadImageFromFile")
load_map = [dict(type="LoadAnnotations"), dict(type="mtadapt.IgnoreLabels", labels=[11])]  # 11 is void
sources = dict(
    cifar10=dict(
        tasks=["cls"],
        dataset=dict(
            **images,
            data_prefix="train",
            pipeline=[
                load,
                dict(type="Resize", scale=(64, 64)),
                dict(type="RandomCrop", crop_size=64, padding=8),
                dict(type="RandomFlip", prob=0.5, direction="horizontal"),
                dict(type="PackInputs"),
            ],
        ),
    ),
    bccd=dict(
        tasks=["det"],
        dataset=dict(
            **boxes,
            ann_file="annotations/instances_train.json",
            data_prefix=dict(img="train/"),
            pipeline=[
                load,
                dict(type="LoadAnnotations", with_bbox=True),
                dict(type="Resize", scale=(320, 240), keep_ratio=True),
                dict(type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
                dict(type="PackDetInputs"),
            ],
        ),
    ),
    camvid=dict(
        tasks=["sem_seg"],
        dataset=dict(
            **maps,
            data_prefix=dict(img_path="train", seg_map_path="trainannot"),
            pipeline=[
                load,
                *load_map,
                dict(type="RandomResize", scale=(240, 180), ratio_range=(0.75, 1.5), keep_ratio=True),
                dict(type="RandomCrop", crop_size=(160, 224), cat_max_ratio=0.75),
                dict(type="RandomFlip", prob=0.5),
                dict(type="PhotoMetricDistortion"),
                dict(type="PackSegInputs"),
            ],
        ),
    ),
)
val_sources = dict(
    cifar10=dict(
        tasks=["cls"],
        dataset=dict(
            **images,
            data_prefix="val",
            test_mode=True,
            pipeline=[load, dict(type="Resize", scale=(64, 64)), dict(type="PackInputs")],
        ),
    ),
    bccd=dict(
        tasks=["det"],
        dataset=dict(
            **boxes,
            ann_file="annotations/instances_val.json",
            data_prefix=dict(img="val/"),
            test_mode=True,
            pipeline=[
                load,
                dict(type="Resize", scale=(320, 240), keep_ratio=True),
                dict(type="LoadAnnotations", with_bbox=True),
                dict(type="PackDetInputs"),
            ],
        ),
    ),
    camvid=dict(
        tasks=["sem_seg"],
        dataset=dict(
            **maps,
            data_prefix=dict(img_path="val", seg_map_path="valannot"),
            test_mode=True,
            pipeline=[
                load,
                dict(type="Resize", scale=(240, 180), keep_ratio=True),
                *load_map,
                dict(type="PackSegInputs"),
            ],
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
        batch_size=dict(cifar10=32, bccd=2, camvid=4),
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
        det=dict(type="mmdet.CocoMetric", ann_file="data/bccd/annotations/instances_val.json", metric="bbox"),
        sem_seg=dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"]),
    ),
)
test_evaluator = val_evaluator
