"""The zoo on CamVid at 240x180, pretrain-finetune: everything is trained from the first step.

python tools/train.py configs/zoo/camvid/finetune.py
"""

_base_ = [
    "../../_base_/datasets/camvid_240x180.py",
    "../../_base_/models/mt_efficientnet-lite0_fpn.py",
    "../../_base_/schedules/iters_adamw_zoo.py",
    "../../_base_/iters_runtime.py",
]
model = dict(
    # Statistics of batches for random and pretrained weights alike; those of random weights say nothing.
    backbone=dict(norm_eval=False),
    # Half the image, half the anchors and regions.
    tasks=dict(
        det=dict(
            rpn_head=dict(anchor_generator=dict(scales=[2])),
            roi_head=dict(bbox_roi_extractor=dict(finest_scale=14)),
        )
    ),
)
train_dataloader = dict(sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=True))
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1), visualization=dict(num_images=0))
