"""The zoo on rendered scenes, pretrain-adapt-finetune with multi-scale adapters: a fifth of the steps adapts.

python tools/train.py configs/zoo/synthetic/adapt_finetune.py
"""

_base_ = "finetune.py"
model = dict(adapter=dict(type="MultiScaleAdapter", in_channels=96))
warm_up = dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20)
stages = [
    dict(name="adapt", freeze=["backbone"], length=20, param_scheduler=[warm_up]),
    dict(
        name="finetune",
        length=80,
        param_scheduler=[
            warm_up,
            dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=80, T_max=80, eta_min_ratio=0.01),
        ],
    ),
]
