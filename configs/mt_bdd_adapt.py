"""Pretrain-adapt-finetune on BDD100K with multi-scale adapters, R-50 FPN; the 12 epochs of mt_bdd_baseline.py.

bash tools/dist_train.sh configs/mt_bdd_adapt.py 8
"""

_base_ = [
    "_base_/datasets/bdd100k.py",
    "_base_/models/mt_r50_fpn.py",
    "_base_/schedules/adapt_finetune_12e.py",
    "_base_/default_runtime.py",
]
model = dict(adapter=dict(type="MultiScaleAdapter", in_channels=256))
