# The three tasks on the small ResNet of hvp_resnet18-w32.py, with the heads of mt_efficientnet-lite0_fpn.py.
_base_ = "mt_efficientnet-lite0_fpn.py"
model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(
        _delete_=True,
        type="mmpretrain.ResNet",
        depth=18,
        stem_channels=32,
        base_channels=32,
        out_indices=(0, 1, 2, 3),
    ),
    neck=dict(in_channels=[32, 64, 128, 256]),
)
