# The detection recipe of epochs_12.py, of which the first two epochs adapt: the backbone rests.
_base_ = "epochs_12.py"
warm_up = dict(type="LinearLR", start_factor=0.001, by_epoch=False, begin=0, end=500)
stages = [
    dict(name="adapt", freeze=["backbone"], length=2, param_scheduler=[warm_up]),
    dict(
        name="finetune",
        param_scheduler=[
            warm_up,
            dict(type="MultiStepLR", by_epoch=True, begin=0, end=10, milestones=[6, 9], gamma=0.1),
        ],
    ),
]
