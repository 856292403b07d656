# Swin-B at 192 px with windows of 6, as in SimMIM, with the three branches.
model = dict(
    type="HeuristicPretrainer",
    data_preprocessor=dict(
        type="PretrainDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        type="mmpretrain.SwinTransformer",
        arch="base",
        img_size=192,
        stage_cfgs=dict(block_cfgs=dict(window_size=6)),
        drop_path_rate=0.1,
    ),
    multi_label=dict(type="MLDecoderHead", in_channels=1024),
    masked_image=dict(in_channels=1024, encoder_stride=32),
    contrastive=dict(
        projector=dict(type="mmpretrain.DenseCLNeck", in_channels=1024, hid_channels=2048, out_channels=128),
        queue_len=65536,
        momentum=0.001,
        temperature=0.2,
        patch_weight=0.5,
    ),
    # Ours.
    loss_weights=dict(mlc=0.1, mim=1.0, con=0.1),
)
