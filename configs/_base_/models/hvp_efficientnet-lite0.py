# EfficientNet-lite0 from random weights with the three branches, for small images and CPUs. Masked images have hidden
# pixels.
_base_ = "hvp_swin-nano.py"
model = dict(
    data_preprocessor=dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0]),
    backbone=dict(_delete_=True, type="EfficientNetLite0", pretrained=None, out_indices=(3,), norm_eval=False),
    multi_label=dict(in_channels=320),
    masked_image=dict(in_channels=320),
    contrastive=dict(projector=dict(in_channels=320), queue_len=256),
    loss_weights=dict(mlc=0.2, mim=1.0, con=0.2),
)
