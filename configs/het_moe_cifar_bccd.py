"""The first two of het_moe_cifar_bccd_camvid.py: a model to which tools/moe/extend.py adds segmentation.

python tools/train.py configs/het_moe_cifar_bccd.py
"""

_base_ = "het_moe_cifar_bccd_camvid.py"
max_iters = 600
model = dict(
    backbone=dict(tasks=["cls", "det"]),
    tasks=dict(_delete_=True, cls={{_base_.model.tasks.cls}}, det={{_base_.model.tasks.det}}),
)
train_dataloader = dict(
    dataset=dict(sources=dict(_delete_=True, cifar10={{_base_.sources.cifar10}}, bccd={{_base_.sources.bccd}})),
    batch_sampler=dict(batch_size=dict(_delete_=True, cifar10=32, bccd=2)),
)
val_dataloader = dict(
    dataset=dict(sources=dict(_delete_=True, cifar10={{_base_.val_sources.cifar10}}, bccd={{_base_.val_sources.bccd}}))
)
test_dataloader = val_dataloader
val_evaluator = dict(
    tasks=dict(_delete_=True, cls={{_base_.val_evaluator.tasks.cls}}, det={{_base_.val_evaluator.tasks.det}})
)
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=60),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
