# ResNet-18 at half its width with the three branches, for small images and CPUs. Masked images have hidden pixels.
_base_ = "hvp_swin-nano.py"
model = dict(
    backbone=dict(
        _delete_=True, type="mmpretrain.ResNet", depth=18, stem_channels=32, base_channels=32, out_indices=(3,)
    ),
    contrastive=dict(queue_len=256),
    loss_weights=dict(mlc=0.2, mim=1.0, con=0.2),
)
