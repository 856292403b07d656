# Rendered driving scenes in BDD100K's layout, with labels of three kinds, at 160x160; this command writes them:
#   python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0
labels = dict(
    style=[
        "weather=clear",
        "weather=overcast",
        "weather=partly cloudy",
        "weather=rainy",
        "weather=snowy",
        "weather=foggy",
        "scene=city street",
        "scene=highway",
        "scene=residential",
        "timeofday=daytime",
        "timeofday=dawn/dusk",
        "timeofday=night",
    ],
    objects=[
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
    ],
    # Each holds in 20 to 247 of 300 training images. Where a horizontal flip turns one into another, both are here.
    relations=[
        "car next to car",
        "car left of pedestrian",
        "pedestrian left of car",
        "pedestrian left of pedestrian",
        "pedestrian next to car",
        "pedestrian next to pedestrian",
        "pedestrian inside car",
        "car left of truck",
        "truck left of car",
        "truck next to car",
        "bus left of car",
        "car left of bus",
        "bus next to car",
        "rider left of car",
        "car left of rider",
        "rider next to car",
        "rider left of pedestrian",
        "pedestrian left of rider",
        "bicycle left of car",
        "car left of bicycle",
        "traffic sign above car",
        "traffic sign above pedestrian",
        "traffic light above car",
        "car above car",
    ],
)
reader = dict(
    type="BDD100KLabels",
    data_root="data/synthetic",
    remedy="python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 "
    "--seed 0 writes them",
)
mask_patches = dict(type="MaskPatches", input_size=160, mask_patch_size=32, model_patch_size=4, mask_ratio=0.6)
train_pipeline = [
    dict(type="LoadImage"),
    dict(
        type="PretrainViews",
        base=[
            # SimMIM's scale. The images are wide: crops of at most 4:3 would almost all be the middle one.
            dict(
                type="RandomResizedCrop",
                scale=160,
                crop_ratio_range=(0.67, 1.0),
                aspect_ratio_range=(1.0, 5 / 3),
            ),
            dict(type="RandomFlip", prob=0.5, direction="horizontal"),
        ],
        key=[
            dict(type="RandomResizedCrop", scale=160, crop_ratio_range=(0.2, 1.0)),
            dict(
                type="RandomApply",
                transforms=[dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1)],
                prob=0.8,
            ),
            dict(type="RandomGrayscale", prob=0.2, keep_channels=True, channel_weights=(0.114, 0.587, 0.2989)),
            dict(type="GaussianBlur", magnitude_range=(0.1, 2.0), magnitude_std="inf", prob=0.5),
            dict(type="RandomFlip", prob=0.5, direction="horizontal"),
        ],
    ),
    mask_patches,
    dict(type="PackPretrainInputs"),
]
val_pipeline = [
    dict(type="LoadImage"),
    # The whole image, so that nothing that has a label is cut off; every image keeps its mask.
    dict(type="PretrainViews", base=[dict(type="Resize", scale=(160, 160))]),
    dict(**mask_patches, seed=0),
    dict(type="PackPretrainInputs"),
]

train_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    batch_size=1,  # the batch sampler's instead
    sampler=dict(type="InfiniteSampler"),
    dataset=dict(
        type="HeterogeneousDataset",
        sources=dict(
            synthetic=dict(
                tasks=dict(mlc="label"),
                dataset=dict(
                    type="MultiLabelDataset",
                    labels=labels,
                    reader=dict(**reader, split="train"),
                    pipeline=train_pipeline,
                ),
            )
        ),
    ),
    batch_sampler=dict(type="HeterogeneousBatchSampler", batch_size=16),
)
val_dataloader = dict(
    num_workers=1,
    persistent_workers=True,
    batch_size=16,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="HeterogeneousDataset",
        sources=dict(
            synthetic=dict(
                tasks=dict(mlc="label"),
                dataset=dict(
                    type="MultiLabelDataset",
                    labels=labels,
                    reader=dict(**reader, split="val"),
                    pipeline=val_pipeline,
                    test_mode=True,
                ),
            )
        ),
    ),
)
test_dataloader = val_dataloader
