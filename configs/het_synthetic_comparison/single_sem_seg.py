"""Comparison on painted scenes: sem_seg alone, with the batches that its source has in het.py.

python tools/train.py configs/het_synthetic_comparison/single_sem_seg.py
"""

_base_ = "het.py"
max_iters = 100
model = dict(tasks=dict(_delete_=True, sem_seg={{_base_.model.tasks.sem_seg}}))
train_dataloader = dict(
    dataset=dict(sources=dict(_delete_=True, ade20k={{_base_.sources.ade20k}})),
    batch_sampler=dict(
        batch_size=dict(_delete_=True, ade20k={{_base_.train_dataloader.batch_sampler.batch_size.ade20k}})
    ),
)
val_dataloader = dict(dataset=dict(sources=dict(_delete_=True, ade20k={{_base_.val_sources.ade20k}})))
test_dataloader = val_dataloader
val_evaluator = dict(tasks=dict(_delete_=True, sem_seg={{_base_.val_evaluator.tasks.sem_seg}}))
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=10),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
