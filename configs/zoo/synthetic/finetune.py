"""The zoo on rendered scenes, pretrain-finetune: everything is trained from the first step.

python tools/train.py configs/zoo/synthetic/finetune.py
"""

_base_ = [
    "../../_base_/datasets/synthetic.py",
    "../../_base_/models/mt_efficientnet-lite0_fpn.py",
    "../../_base_/schedules/iters_adamw_zoo.py",
    "../../_base_/iters_runtime.py",
]
model = dict(
    # Statistics of batches for random and pretrained weights alike; those of random weights say nothing.
    backbone=dict(norm_eval=False),
)
max_iters = 100
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
train_dataloader = dict(sampler=dict(_delete_=True, type="InfiniteSampler", shuffle=True))
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1), visualization=dict(num_images=0))
