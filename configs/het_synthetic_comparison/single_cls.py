"""Comparison on painted scenes: cls alone, with the batches that its source has in het.py.

python tools/train.py configs/het_synthetic_comparison/single_cls.py
"""

_base_ = "het.py"
max_iters = 100
# Its head reads the backbone; a neck that nothing reads would get no gradient.
model = dict(neck=None, tasks=dict(_delete_=True, cls={{_base_.model.tasks.cls}}))
train_dataloader = dict(
    dataset=dict(sources=dict(_delete_=True, imagenet={{_base_.sources.imagenet}})),
    batch_sampler=dict(
        batch_size=dict(_delete_=True, imagenet={{_base_.train_dataloader.batch_sampler.batch_size.imagenet}})
    ),
)
val_dataloader = dict(dataset=dict(sources=dict(_delete_=True, imagenet={{_base_.val_sources.imagenet}})))
test_dataloader = val_dataloader
val_evaluator = dict(tasks=dict(_delete_=True, cls={{_base_.val_evaluator.tasks.cls}}))
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=10),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
