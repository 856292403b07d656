custom_hooks = [
    dict(type='mtadapt.CheckpointMatchHook'),
    dict(type='mtadapt.ParameterTableHook'),
    dict(type='mtadapt.MetricTableHook'),
    dict(type='mtadapt.NonFiniteHook'),
    dict(type='mtadapt.RankHeartbeatHook'),
]
custom_imports = dict(
    allow_failed_imports=False, imports=[
        'mtadapt',
    ])
data_root = 'data/synthetic'
default_hooks = dict(
    checkpoint=dict(
        by_epoch=False,
        interval=100,
        max_keep_ckpts=1,
        type='mtadapt.ResumableCheckpointHook'),
    cost=dict(type='mtadapt.CostHook'),
    logger=dict(interval=50, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'),
    visualization=dict(type='SegVisualizationHook'))
default_scope = 'mmseg'
det = dict(
    _scope_='mmdet',
    backbone=dict(type='mtadapt.SharedFeatures'),
    neck=None,
    roi_head=dict(
        bbox_head=dict(
            bbox_coder=dict(
                target_means=[
                    0.0,
                    0.0,
                    0.0,
                    0.0,
                ],
                target_stds=[
                    0.1,
                    0.1,
                    0.2,
                    0.2,
                ],
                type='DeltaXYWHBBoxCoder'),
            fc_out_channels=256,
            in_channels=96,
            loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
            loss_cls=dict(
                loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=False),
            num_classes=10,
            reg_class_agnostic=False,
            roi_feat_size=7,
            type='Shared2FCBBoxHead'),
        bbox_roi_extractor=dict(
            featmap_strides=[
                4,
                8,
                16,
                32,
            ],
            finest_scale=28,
            out_channels=96,
            roi_layer=dict(output_size=7, sampling_ratio=2, type='RoIAlign'),
            type='SingleRoIExtractor'),
        type='StandardRoIHead'),
    rpn_head=dict(
        anchor_generator=dict(
            ratios=[
                0.5,
                1.0,
                2.0,
            ],
            scales=[
                4,
            ],
            strides=[
                4,
                8,
                16,
                32,
                64,
            ],
            type='AnchorGenerator'),
        bbox_coder=dict(
            target_means=[
                0.0,
                0.0,
                0.0,
                0.0,
            ],
            target_stds=[
                1.0,
                1.0,
                1.0,
                1.0,
            ],
            type='DeltaXYWHBBoxCoder'),
        feat_channels=96,
        in_channels=96,
        loss_bbox=dict(loss_weight=1.0, type='L1Loss'),
        loss_cls=dict(
            loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=True),
        type='RPNHead'),
    test_cfg=dict(
        rcnn=dict(
            max_per_img=100,
            nms=dict(iou_threshold=0.5, type='nms'),
            score_thr=0.05),
        rpn=dict(
            max_per_img=300,
            min_bbox_size=0,
            nms=dict(iou_threshold=0.7, type='nms'),
            nms_pre=600)),
    train_cfg=dict(
        rcnn=dict(
            assigner=dict(
                ignore_iof_thr=0.5,
                match_low_quality=False,
                min_pos_iou=0.5,
                neg_iou_thr=0.5,
                pos_iou_thr=0.5,
                type='MaxIoUAssigner'),
            debug=False,
            pos_weight=-1,
            sampler=dict(
                add_gt_as_proposals=True,
                neg_pos_ub=-1,
                num=128,
                pos_fraction=0.25,
                type='RandomSampler')),
        rpn=dict(
            allowed_border=-1,
            assigner=dict(
                ignore_iof_thr=0.5,
                match_low_quality=True,
                min_pos_iou=0.3,
                neg_iou_thr=0.3,
                pos_iou_thr=0.7,
                type='MaxIoUAssigner'),
            debug=False,
            pos_weight=-1,
            sampler=dict(
                add_gt_as_proposals=False,
                neg_pos_ub=-1,
                num=256,
                pos_fraction=0.5,
                type='RandomSampler')),
        rpn_proposal=dict(
            max_per_img=300,
            min_bbox_size=0,
            nms=dict(iou_threshold=0.7, type='nms'),
            nms_pre=600)),
    type='FasterRCNN')
drivable = dict(
    _scope_='mmseg',
    backbone=dict(type='mtadapt.SharedFeatures'),
    decode_head=dict(
        align_corners=False,
        channels=64,
        dropout_ratio=0.1,
        feature_strides=[
            4,
            8,
            16,
            32,
        ],
        in_channels=[
            96,
            96,
            96,
            96,
        ],
        in_index=[
            0,
            1,
            2,
            3,
        ],
        loss_decode=dict(
            loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=False),
        norm_cfg=dict(num_groups=16, requires_grad=True, type='GN'),
        num_classes=3,
        type='FPNHead'),
    test_cfg=dict(mode='whole'),
    train_cfg=dict(),
    type='EncoderDecoder')
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0))
load_from = None
log_level = 'INFO'
log_processor = dict(by_epoch=False, type='LogProcessor', window_size=50)
max_iters = 100
model = dict(
    backbone=dict(
        norm_eval=False, pretrained=None, type='mtadapt.EfficientNetLite0'),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            127.0,
            127.0,
            127.0,
        ],
        pad_val=0,
        seg_pad_val=255,
        size_divisor=32,
        std=[
            128.0,
            128.0,
            128.0,
        ],
        test_cfg=dict(size_divisor=32),
        type='mmseg.SegDataPreProcessor'),
    decode_head=dict(
        align_corners=False,
        channels=64,
        dropout_ratio=0.1,
        feature_strides=[
            4,
            8,
            16,
            32,
        ],
        in_channels=[
            96,
            96,
            96,
            96,
        ],
        in_index=[
            0,
            1,
            2,
            3,
        ],
        loss_decode=dict(
            loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=False),
        norm_cfg=dict(num_groups=16, requires_grad=True, type='GN'),
        num_classes=3,
        type='FPNHead'),
    neck=dict(
        in_channels=[
            24,
            40,
            112,
            320,
        ],
        num_outs=5,
        out_channels=96,
        type='mmdet.FPN'),
    test_cfg=dict(mode='whole'),
    train_cfg=dict(),
    type='mmseg.EncoderDecoder')
optim_wrapper = dict(
    clip_grad=dict(max_norm=10.0),
    optimizer=dict(lr=0.001, type='AdamW', weight_decay=0.05),
    type='OptimWrapper')
param_scheduler = [
    dict(begin=0, by_epoch=False, end=20, start_factor=0.05, type='LinearLR'),
    dict(
        T_max=100,
        begin=0,
        by_epoch=False,
        end=100,
        eta_min_ratio=0.01,
        type='CosineAnnealingLR'),
]
randomness = dict(seed=0)
resume = False
sem_seg = dict(
    _scope_='mmseg',
    backbone=dict(type='mtadapt.SharedFeatures'),
    decode_head=dict(
        align_corners=False,
        channels=64,
        dropout_ratio=0.1,
        feature_strides=[
            4,
            8,
            16,
            32,
        ],
        in_channels=[
            96,
            96,
            96,
            96,
        ],
        in_index=[
            0,
            1,
            2,
            3,
        ],
        loss_decode=dict(
            loss_weight=1.0, type='CrossEntropyLoss', use_sigmoid=False),
        norm_cfg=dict(num_groups=16, requires_grad=True, type='GN'),
        num_classes=19,
        type='FPNHead'),
    test_cfg=dict(mode='whole'),
    train_cfg=dict(),
    type='EncoderDecoder')
tasks = ('drivable', )
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root='data/synthetic',
        pipeline=[
            dict(type='mtadapt.LoadImage'),
            dict(type='mtadapt.LoadMultiTaskAnnotations'),
            dict(type='mmseg.PackSegInputs'),
        ],
        split='val',
        tasks=('drivable', ),
        test_mode=True,
        type='mtadapt.BDD100KDataset'),
    num_workers=2,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'))
test_evaluator = dict(type='mtadapt.DrivableMetric')
test_pipeline = [
    dict(type='mtadapt.LoadImage'),
    dict(type='mtadapt.LoadMultiTaskAnnotations'),
    dict(type='mmseg.PackSegInputs'),
]
train_cfg = dict(max_iters=100, type='IterBasedTrainLoop', val_interval=100)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root='data/synthetic',
        label_setting='full',
        label_tasks=(
            'det',
            'sem_seg',
            'drivable',
        ),
        on_error='raise',
        pipeline=[
            dict(type='mtadapt.LoadImage'),
            dict(type='mtadapt.LoadMultiTaskAnnotations'),
            dict(prob=0.5, type='mmdet.RandomFlip'),
            dict(type='mmseg.PackSegInputs'),
        ],
        split='train',
        tasks=('drivable', ),
        type='mtadapt.BDD100KDataset'),
    num_workers=2,
    persistent_workers=True,
    sampler=dict(shuffle=True, type='InfiniteSampler'))
train_pipeline = [
    dict(type='mtadapt.LoadImage'),
    dict(type='mtadapt.LoadMultiTaskAnnotations'),
    dict(prob=0.5, type='mmdet.RandomFlip'),
    dict(type='mmseg.PackSegInputs'),
]
val_cfg = dict(type='ValLoop')
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root='data/synthetic',
        pipeline=[
            dict(type='mtadapt.LoadImage'),
            dict(type='mtadapt.LoadMultiTaskAnnotations'),
            dict(type='mmseg.PackSegInputs'),
        ],
        split='val',
        tasks=('drivable', ),
        test_mode=True,
        type='mtadapt.BDD100KDataset'),
    num_workers=2,
    persistent_workers=True,
    sampler=dict(shuffle=False, type='DefaultSampler'))
val_evaluator = dict(type='mtadapt.DrivableMetric')
visualizer = dict(
    type='SegLocalVisualizer', vis_backends=[
        dict(type='LocalVisBackend'),
    ])
work_dir = 'work_dirs/zoo_demo/single_task/full/drivable/random/seed0'
