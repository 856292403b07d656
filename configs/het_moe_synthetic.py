"""Three single-task datasets of painted scenes, one mixture-of-experts transformer from scratch; minutes on a CPU.

python tools/dataset_converters/synthetic_heterogeneous.py data/synthetic_heterogeneous \
    --train 400 --val 80 --size 320x192 --seed 0
python tools/train.py configs/het_moe_synthetic.py
"""

_base_ = [
    "_base_/datasets/het_synthetic.py",
    "_base_/models/het_moe-davit-nano.py",
    "_base_/iters_runtime.py",
    "_base_/schedules/iters_adamw_scratch.py",
]
# Small scenes, small objects: half the anchors and regions.
model = dict(
    tasks=dict(
        det=dict(
            rpn_head=dict(anchor_generator=dict(scales=[2])),
            roi_head=dict(bbox_roi_extractor=dict(finest_scale=14)),
        )
    )
)
# From scratch, detection needs more steps than the others.
max_iters = 1500
train_dataloader = dict(batch_sampler=dict(schedule="fixed", weights=dict(imagenet=1, coco=3, ade20k=1)))
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=90),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
