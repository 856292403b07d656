# The recipe of heterogeneous training in arXiv 2306.17165: LAMB with one cycle. Ours: the number of iterations; with
# het_in1k_coco_ade20k.py on 8 GPUs they are 100 epochs of ImageNet-1k, 23 of COCO and 66 of ADE20K.
max_iters = 500000
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=50000)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="mmpretrain.Lamb", lr=0.004, weight_decay=0.05),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = [dict(type="OneCycleLR", eta_max=0.004, total_steps=max_iters, by_epoch=False)]
