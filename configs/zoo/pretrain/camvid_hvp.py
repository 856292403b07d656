"""Pre-training of the zoo on CamVid: EfficientNet-lite0 from random weights, labels, masked images and contrast.

python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 300 --val 60 --size 320x192 --seed 0
python tools/dataset_converters/camvid_to_bdd100k.py CAMVID data/camvid
python tools/train.py configs/zoo/pretrain/camvid_hvp.py
"""

_base_ = [
    "../../_base_/datasets/hvp_synthetic_camvid.py",
    "../../_base_/models/hvp_efficientnet-lite0.py",
    "../../_base_/schedules/iters_adamw_pretrain.py",
    "../../_base_/hvp_runtime.py",
]
max_iters = 200
model = dict(multi_label=dict(labels={{_base_.labels}}))
val_evaluator = [dict(type="MultiLabelMAP"), dict(type="KNNTop1", group="timeofday")]
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
default_hooks = dict(checkpoint=dict(interval=100, max_keep_ckpts=1), visualization=dict(num_images=0))
