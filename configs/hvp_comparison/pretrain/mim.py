"""Comparison of pre-trainings: masked image modelling alone, with the computation of all.py.

python tools/train.py configs/hvp_comparison/pretrain/mim.py
"""

_base_ = "all.py"
max_iters = 700
model = dict(multi_label=None, contrastive=None)
val_evaluator = [dict(type="KNNTop1", group="timeofday")]
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
