# het_r50.py with Swin-T as its backbone.
_base_ = "het_r50.py"
channels = [96, 192, 384, 768]
model = dict(
    backbone=dict(
        _delete_=True,
        type="mmdet.SwinTransformer",
        embed_dims=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        mlp_ratio=4,
        qkv_bias=True,
        drop_path_rate=0.2,
        patch_norm=True,
        out_indices=(0, 1, 2, 3),
        with_cp=False,
        convert_weights=True,
        init_cfg=dict(
            type="Pretrained",
            checkpoint="https://github.com/SwinTransformer/storage/releases/download/v1.0.0/swin_tiny_patch4_window7_224.pth",
        ),
    ),
    tasks=dict(
        cls=dict(head=dict(in_channels=768)),
        det=dict(neck=dict(in_channels=channels)),
        sem_seg=dict(decode_head=dict(in_channels=channels), auxiliary_head=dict(in_channels=384)),
    ),
)
