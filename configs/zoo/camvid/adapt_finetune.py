"""The zoo on CamVid at 240x180, pretrain-adapt-finetune with multi-scale adapters: a fifth of the steps adapts.

python tools/train.py configs/zoo/camvid/adapt_finetune.py
"""

_base_ = "finetune.py"
model = dict(adapter=dict(type="MultiScaleAdapter", in_channels=96))
warm_up = dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20)
stages = [
    dict(name="adapt", freeze=["backbone"], length=40, param_scheduler=[warm_up]),
    dict(
        name="finetune",
        length=160,
        param_scheduler=[
            warm_up,
            dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=160, T_max=160, eta_min_ratio=0.01),
        ],
    ),
]
