# The eight epochs of epochs_adamw.py, of which the first one adapts: the backbone rests.
_base_ = "epochs_adamw.py"
warm_up = dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=50)
stages = [
    dict(name="adapt", freeze=["backbone"], length=1, param_scheduler=[warm_up]),
    dict(
        name="finetune",
        param_scheduler=[
            warm_up,
            dict(
                type="CosineAnnealingLR",
                by_epoch=True,
                begin=0,
                end=7,
                T_max=7,
                eta_min_ratio=0.01,
                convert_to_iter_based=True,
            ),
        ],
    ),
]
