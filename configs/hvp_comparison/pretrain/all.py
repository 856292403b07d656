"""Comparison of pre-trainings: all three branches, on rendered scenes and CamVid's frames.

python tools/train.py configs/hvp_comparison/pretrain/all.py

The budget is computation: a forward pass of the backbone costs 1, its backward pass 2. A step of all three branches
costs 7 (unmasked and masked pass 3 each, keys 1), so 300 steps cost 2100, as 700 steps of labels or masked images alone
(3 each) and 525 of contrast alone (4 each).
"""

_base_ = [
    "../../_base_/datasets/hvp_synthetic_camvid.py",
    "../../_base_/models/hvp_resnet18-w32.py",
    "../../_base_/schedules/iters_adamw_pretrain.py",
    "../../_base_/hvp_runtime.py",
]
model = dict(multi_label=dict(labels={{_base_.labels}}))
val_evaluator = [dict(type="MultiLabelMAP"), dict(type="KNNTop1", group="timeofday")]
test_evaluator = val_evaluator
train_cfg = dict(val_interval=300)
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1))
