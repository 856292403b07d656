custom_hooks = [
    dict(type='CheckpointMatchHook'),
    dict(type='ParameterTableHook'),
    dict(interval=50, type='TaskProgressHook'),
    dict(type='MetricTableHook'),
    dict(type='NonFiniteHook'),
    dict(type='RankHeartbeatHook'),
]
custom_imports = dict(
    allow_failed_imports=False, imports=[
        'mtadapt',
    ])
default_hooks = dict(
    checkpoint=dict(
        by_epoch=False,
        interval=100,
        max_keep_ckpts=1,
        type='ResumableCheckpointHook'),
    cost=dict(type='mtadapt.CostHook'),
    logger=dict(interval=50, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'),
    visualization=dict(num_images=0, type='ReconstructionHook'))
default_scope = 'mtadapt'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
labels = dict(
    objects=[
        'pedestrian',
        'rider',
        'car',
        'truck',
        'bus',
        'train',
        'motorcycle',
        'bicycle',
        'traffic light',
        'traffic sign',
    ],
    relations=[
        'car next to car',
        'car left of pedestrian',
        'pedestrian left of car',
        'pedestrian left of pedestrian',
        'pedestrian next to car',
        'pedestrian next to pedestrian',
        'pedestrian inside car',
        'car left of truck',
        'truck left of car',
        'truck next to car',
        'bus left of car',
        'car left of bus',
        'bus next to car',
        'rider left of car',
        'car left of rider',
        'rider next to car',
        'rider left of pedestrian',
        'pedestrian left of rider',
        'bicycle left of car',
        'car left of bicycle',
        'traffic sign above car',
        'traffic sign above pedestrian',
        'traffic light above car',
        'car above car',
    ],
    style=[
        'weather=clear',
        'weather=overcast',
        'weather=partly cloudy',
        'weather=rainy',
        'weather=snowy',
        'weather=foggy',
        'scene=city street',
        'scene=highway',
        'scene=residential',
        'timeofday=daytime',
        'timeofday=dawn/dusk',
        'timeofday=night',
    ])
load_from = None
log_level = 'INFO'
log_processor = dict(by_epoch=False, type='LogProcessor', window_size=50)
mask_patches = dict(
    input_size=160,
    mask_patch_size=32,
    mask_ratio=0.6,
    model_patch_size=4,
    type='MaskPatches')
max_iters = 200
model = dict(
    backbone=dict(
        norm_eval=False,
        out_indices=(3, ),
        pretrained=None,
        type='EfficientNetLite0'),
    contrastive=dict(
        momentum=0.01,
        patch_weight=0.5,
        projector=dict(
            hid_channels=256,
            in_channels=320,
            out_channels=64,
            type='mmpretrain.DenseCLNeck'),
        queue_len=256,
        temperature=0.2),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            127.0,
            127.0,
            127.0,
        ],
        std=[
            128.0,
            128.0,
            128.0,
        ],
        type='PretrainDataPreprocessor'),
    loss_weights=dict(con=0.2, mim=1.0, mlc=0.2),
    masked_image=dict(encoder_stride=32, in_channels=320),
    multi_label=dict(
        embed_dims=128,
        in_channels=320,
        labels=dict(
            objects=[
                'pedestrian',
                'rider',
                'car',
                'truck',
                'bus',
                'train',
                'motorcycle',
                'bicycle',
                'traffic light',
                'traffic sign',
            ],
            relations=[
                'car next to car',
                'car left of pedestrian',
                'pedestrian left of car',
                'pedestrian left of pedestrian',
                'pedestrian next to car',
                'pedestrian next to pedestrian',
                'pedestrian inside car',
                'car left of truck',
                'truck left of car',
                'truck next to car',
                'bus left of car',
                'car left of bus',
                'bus next to car',
                'rider left of car',
                'car left of rider',
                'rider next to car',
                'rider left of pedestrian',
                'pedestrian left of rider',
                'bicycle left of car',
                'car left of bicycle',
                'traffic sign above car',
                'traffic sign above pedestrian',
                'traffic light above car',
                'car above car',
            ],
            style=[
                'weather=clear',
                'weather=overcast',
                'weather=partly cloudy',
                'weather=rainy',
                'weather=snowy',
                'weather=foggy',
                'scene=city street',
                'scene=highway',
                'scene=residential',
                'timeofday=daytime',
                'timeofday=dawn/dusk',
                'timeofday=night',
            ]),
        type='MLDecoderHead'),
    type='HeuristicPretrainer')
optim_wrapper = dict(
    clip_grad=dict(max_norm=5.0),
    optimizer=dict(lr=0.001, type='AdamW', weight_decay=0.05),
    paramwise_cfg=dict(
        bias_decay_mult=0.0,
        custom_keys=dict(
            mask_token=dict(decay_mult=0.0),
            relative_position_bias_table=dict(decay_mult=0.0)),
        norm_decay_mult=0.0),
    type='OptimWrapper')
param_scheduler = [
    dict(begin=0, by_epoch=False, end=30, start_factor=0.05, type='LinearLR'),
    dict(
        T_max=200,
        begin=0,
        by_epoch=False,
        end=200,
        eta_min_ratio=0.01,
        type='CosineAnnealingLR'),
]
randomness = dict(seed=0)
reader = dict(
    data_root='data/synthetic',
    remedy=
    'python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0 writes them',
    type='BDD100KLabels')
resume = False
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=16,
    dataset=dict(
        sources=dict(
            synthetic=dict(
                dataset=dict(
                    labels=dict(
                        objects=[
                            'pedestrian',
                            'rider',
                            'car',
                            'truck',
                            'bus',
                            'train',
                            'motorcycle',
                            'bicycle',
                            'traffic light',
                            'traffic sign',
                        ],
                        relations=[
                            'car next to car',
                            'car left of pedestrian',
                            'pedestrian left of car',
                            'pedestrian left of pedestrian',
                            'pedestrian next to car',
                            'pedestrian next to pedestrian',
                            'pedestrian inside car',
                            'car left of truck',
                            'truck left of car',
                            'truck next to car',
                            'bus left of car',
                            'car left of bus',
                            'bus next to car',
                            'rider left of car',
                            'car left of rider',
                            'rider next to car',
                            'rider left of pedestrian',
                            'pedestrian left of rider',
                            'bicycle left of car',
                            'car left of bicycle',
                            'traffic sign above car',
                            'traffic sign above pedestrian',
                            'traffic light above car',
                            'car above car',
                        ],
                        style=[
                            'weather=clear',
                            'weather=overcast',
                            'weather=partly cloudy',
                            'weather=rainy',
                            'weather=snowy',
                            'weather=foggy',
                            'scene=city street',
                            'scene=highway',
                            'scene=residential',
                            'timeofday=daytime',
                            'timeofday=dawn/dusk',
                            'timeofday=night',
                        ]),
                    pipeline=[
                        dict(type='LoadImage'),
                        dict(
                            base=[
                                dict(scale=(
                                    160,
                                    160,
                                ), type='Resize'),
                            ],
                            type='PretrainViews'),
                        dict(
                            input_size=160,
                            mask_patch_size=32,
                            mask_ratio=0.6,
                            model_patch_size=4,
                            seed=0,
                            type='MaskPatches'),
                        dict(type='PackPretrainInputs'),
                    ],
                    reader=dict(
                        data_root='data/synthetic',
                        remedy=
                        'python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0 writes them',
                        split='val',
                        type='BDD100KLabels'),
                    test_mode=True,
                    type='MultiLabelDataset'),
                tasks=dict(mlc='label'))),
        type='HeterogeneousDataset'),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = [
    dict(type='MultiLabelMAP'),
    dict(group='timeofday', type='KNNTop1'),
]
train_cfg = dict(max_iters=200, type='IterBasedTrainLoop', val_interval=200)
train_dataloader = dict(
    batch_sampler=dict(batch_size=16, type='HeterogeneousBatchSampler'),
    batch_size=1,
    dataset=dict(
        sources=dict(
            synthetic=dict(
                dataset=dict(
                    labels=dict(
                        objects=[
                            'pedestrian',
                            'rider',
                            'car',
                            'truck',
                            'bus',
                            'train',
                            'motorcycle',
                            'bicycle',
                            'traffic light',
                            'traffic sign',
                        ],
                        relations=[
                            'car next to car',
                            'car left of pedestrian',
                            'pedestrian left of car',
                            'pedestrian left of pedestrian',
                            'pedestrian next to car',
                            'pedestrian next to pedestrian',
                            'pedestrian inside car',
                            'car left of truck',
                            'truck left of car',
                            'truck next to car',
                            'bus left of car',
                            'car left of bus',
                            'bus next to car',
                            'rider left of car',
                            'car left of rider',
                            'rider next to car',
                            'rider left of pedestrian',
                            'pedestrian left of rider',
                            'bicycle left of car',
                            'car left of bicycle',
                            'traffic sign above car',
                            'traffic sign above pedestrian',
                            'traffic light above car',
                            'car above car',
                        ],
                        style=[
                            'weather=clear',
                            'weather=overcast',
                            'weather=partly cloudy',
                            'weather=rainy',
                            'weather=snowy',
                            'weather=foggy',
                            'scene=city street',
                            'scene=highway',
                            'scene=residential',
                            'timeofday=daytime',
                            'timeofday=dawn/dusk',
                            'timeofday=night',
                        ]),
                    pipeline=[
                        dict(type='LoadImage'),
                        dict(
                            base=[
                                dict(
                                    aspect_ratio_range=(
                                        1.0,
                                        1.6666666666666667,
                                    ),
                                    crop_ratio_range=(
                                        0.67,
                                        1.0,
                                    ),
                                    scale=160,
                                    type='RandomResizedCrop'),
                                dict(
                                    direction='horizontal',
                                    prob=0.5,
                                    type='RandomFlip'),
                            ],
                            key=[
                                dict(
                                    crop_ratio_range=(
                                        0.2,
                                        1.0,
                                    ),
                                    scale=160,
                                    type='RandomResizedCrop'),
                                dict(
                                    prob=0.8,
                                    transforms=[
                                        dict(
                                            brightness=0.4,
                                            contrast=0.4,
                                            hue=0.1,
                                            saturation=0.4,
                                            type='ColorJitter'),
                                    ],
                                    type='RandomApply'),
                                dict(
                                    channel_weights=(
                                        0.114,
                                        0.587,
                                        0.2989,
                                    ),
                                    keep_channels=True,
                                    prob=0.2,
                                    type='RandomGrayscale'),
                                dict(
                                    magnitude_range=(
                                        0.1,
                                        2.0,
                                    ),
                                    magnitude_std='inf',
                                    prob=0.5,
                                    type='GaussianBlur'),
                                dict(
                                    direction='horizontal',
                                    prob=0.5,
                                    type='RandomFlip'),
                            ],
                            type='PretrainViews'),
                        dict(
                            input_size=160,
                            mask_patch_size=32,
                            mask_ratio=0.6,
                            model_patch_size=4,
                            type='MaskPatches'),
                        dict(type='PackPretrainInputs'),
                    ],
                    reader=dict(
                        data_root='data/synthetic',
                        remedy=
                        'python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0 writes them',
                        split='train',
                        type='BDD100KLabels'),
                    type='MultiLabelDataset'),
                tasks=dict(mlc='label'))),
        type='HeterogeneousDataset'),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler'))
train_pipeline = [
    dict(type='LoadImage'),
    dict(
        base=[
            dict(
                aspect_ratio_range=(
                    1.0,
                    1.6666666666666667,
                ),
                crop_ratio_range=(
                    0.67,
                    1.0,
                ),
                scale=160,
                type='RandomResizedCrop'),
            dict(direction='horizontal', prob=0.5, type='RandomFlip'),
        ],
        key=[
            dict(
                crop_ratio_range=(
                    0.2,
                    1.0,
                ),
                scale=160,
                type='RandomResizedCrop'),
            dict(
                prob=0.8,
                transforms=[
                    dict(
                        brightness=0.4,
                        contrast=0.4,
                        hue=0.1,
                        saturation=0.4,
                        type='ColorJitter'),
                ],
                type='RandomApply'),
            dict(
                channel_weights=(
                    0.114,
                    0.587,
                    0.2989,
                ),
                keep_channels=True,
                prob=0.2,
                type='RandomGrayscale'),
            dict(
                magnitude_range=(
                    0.1,
                    2.0,
                ),
                magnitude_std='inf',
                prob=0.5,
                type='GaussianBlur'),
            dict(direction='horizontal', prob=0.5, type='RandomFlip'),
        ],
        type='PretrainViews'),
    dict(
        input_size=160,
        mask_patch_size=32,
        mask_ratio=0.6,
        model_patch_size=4,
        type='MaskPatches'),
    dict(type='PackPretrainInputs'),
]
val_cfg = dict(type='ValLoop')
val_dataloader = dict(
    batch_size=16,
    dataset=dict(
        sources=dict(
            synthetic=dict(
                dataset=dict(
                    labels=dict(
                        objects=[
                            'pedestrian',
                            'rider',
                            'car',
                            'truck',
                            'bus',
                            'train',
                            'motorcycle',
                            'bicycle',
                            'traffic light',
                            'traffic sign',
                        ],
                        relations=[
                            'car next to car',
                            'car left of pedestrian',
                            'pedestrian left of car',
                            'pedestrian left of pedestrian',
                            'pedestrian next to car',
                            'pedestrian next to pedestrian',
                            'pedestrian inside car',
                            'car left of truck',
                            'truck left of car',
                            'truck next to car',
                            'bus left of car',
                            'car left of bus',
                            'bus next to car',
                            'rider left of car',
                            'car left of rider',
                            'rider next to car',
                            'rider left of pedestrian',
                            'pedestrian left of rider',
                            'bicycle left of car',
                            'car left of bicycle',
                            'traffic sign above car',
                            'traffic sign above pedestrian',
                            'traffic light above car',
                            'car above car',
                        ],
                        style=[
                            'weather=clear',
                            'weather=overcast',
                            'weather=partly cloudy',
                            'weather=rainy',
                            'weather=snowy',
                            'weather=foggy',
                            'scene=city street',
                            'scene=highway',
                            'scene=residential',
                            'timeofday=daytime',
                            'timeofday=dawn/dusk',
                            'timeofday=night',
                        ]),
                    pipeline=[
                        dict(type='LoadImage'),
                        dict(
                            base=[
                                dict(scale=(
                                    160,
                                    160,
                                ), type='Resize'),
                            ],
                            type='PretrainViews'),
                        dict(
                            input_size=160,
                            mask_patch_size=32,
                            mask_ratio=0.6,
                            model_patch_size=4,
                            seed=0,
                            type='MaskPatches'),
                        dict(type='PackPretrainInputs'),
                    ],
                    reader=dict(
                        data_root='data/synthetic',
                        remedy=
                        'python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0 writes them',
                        split='val',
                        type='BDD100KLabels'),
                    test_mode=True,
                    type='MultiLabelDataset'),
                tasks=dict(mlc='label'))),
        type='HeterogeneousDataset'),
    num_workers=1,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = [
    dict(type='MultiLabelMAP'),
    dict(group='timeofday', type='KNNTop1'),
]
val_pipeline = [
    dict(type='LoadImage'),
    dict(
        base=[
            dict(scale=(
                160,
                160,
            ), type='Resize'),
        ], type='PretrainViews'),
    dict(
        input_size=160,
        mask_patch_size=32,
        mask_ratio=0.6,
        model_patch_size=4,
        seed=0,
        type='MaskPatches'),
    dict(type='PackPretrainInputs'),
]
visualizer = dict(
    type='MultiTaskVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
    ])
work_dir = 'work_dirs/zoo_demo/pretrain/hvp/seed0'
