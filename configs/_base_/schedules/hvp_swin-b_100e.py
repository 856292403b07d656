# The recipe of SimMIM (arXiv 2111.09886): AdamW at 2e-4 x batch / 512, warm-up of 10 epochs, cosine. Ours: 100 epochs
# counted in iterations of 8 x 128 images of COCO and BDD100K together (188,000 images).
max_iters = 18400
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=1840)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-4 * 1024 / 512, betas=(0.9, 0.999), weight_decay=0.05),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(
        norm_decay_mult=0.0,
        bias_decay_mult=0.0,
        custom_keys=dict(
            absolute_pos_embed=dict(decay_mult=0.0),
            relative_position_bias_table=dict(decay_mult=0.0),
            mask_token=dict(decay_mult=0.0),
        ),
    ),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.005, by_epoch=False, begin=0, end=1840),
    dict(
        type="CosineAnnealingLR",
        by_epoch=False,
        begin=1840,
        end=max_iters,
        T_max=max_iters - 1840,
        eta_min=1e-5 * 1024 / 512,
    ),
]
