"""Comparison of pre-trainings: transfer to the three tasks on CamVid, from random weights.

python tools/train.py configs/hvp_comparison/camvid/random.py
"""

_base_ = [
    "../../_base_/datasets/camvid_240x180.py",
    "../../_base_/models/mt_resnet18-w32_fpn.py",
    "../../_base_/schedules/epochs_adamw.py",
    "../../_base_/default_runtime.py",
]
checkpoint = None
# Half the image, half the anchors and regions.
model = dict(
    tasks=dict(
        det=dict(
            rpn_head=dict(anchor_generator=dict(scales=[2])),
            roi_head=dict(bbox_roi_extractor=dict(finest_scale=14)),
        )
    )
)
train_cfg = dict(max_epochs=3, val_interval=3)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type="CosineAnnealingLR", by_epoch=True, begin=0, end=3, T_max=3, eta_min_ratio=0.01, convert_to_iter_based=True
    ),
]
default_hooks = dict(
    checkpoint=dict(interval=1, max_keep_ckpts=1),
    backbone_weights=dict(type="BackboneWeightsHook"),
    visualization=dict(num_images=0),
)
