# A very small Swin for small images and CPUs at 160 px, with windows of 5. Ours: "nano", a third of Swin-T's width.
_base_ = "hvp_swin-b.py"
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, embed_dims=32, depths=[2, 2, 4, 2], num_heads=[1, 2, 4, 8]),
        img_size=160,
        stage_cfgs=dict(block_cfgs=dict(window_size=5)),
        drop_path_rate=0.0,
    ),
    multi_label=dict(in_channels=256, embed_dims=128),
    masked_image=dict(in_channels=256),
    contrastive=dict(projector=dict(in_channels=256, hid_channels=256, out_channels=64), queue_len=1024, momentum=0.01),
)
