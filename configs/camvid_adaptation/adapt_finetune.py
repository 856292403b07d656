"""Comparison of adaptations on CamVid: pretrain-adapt-finetune with multi-scale adapters.

python tools/train.py configs/camvid_adaptation/adapt_finetune.py
"""

_base_ = "finetune.py"
model = dict(adapter=dict(type="MultiScaleAdapter", in_channels=96))
stages = [
    dict(
        name="adapt",
        freeze=["backbone"],
        length=1,
        param_scheduler=[dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=50)],
    ),
    dict(
        name="finetune",
        param_scheduler=[
            dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=50),
            dict(
                type="CosineAnnealingLR",
                by_epoch=True,
                begin=0,
                end=5,
                T_max=5,
                eta_min_ratio=0.01,
                convert_to_iter_based=True,
            ),
        ],
    ),
]
