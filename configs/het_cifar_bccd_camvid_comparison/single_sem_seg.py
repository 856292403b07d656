"""Comparison on CIFAR-10, BCCD and CamVid: sem_seg alone, with the batches that its source has in het.py.

python tools/train.py configs/het_cifar_bccd_camvid_comparison/single_sem_seg.py
"""

_base_ = "het.py"
max_iters = 100
model = dict(tasks=dict(_delete_=True, sem_seg={{_base_.model.tasks.sem_seg}}))
train_dataloader = dict(
    dataset=dict(sources=dict(_delete_=True, camvid={{_base_.sources.camvid}})),
    batch_sampler=dict(
        batch_size=dict(_delete_=True, camvid={{_base_.train_dataloader.batch_sampler.batch_size.camvid}})
    ),
)
val_dataloader = dict(dataset=dict(sources=dict(_delete_=True, camvid={{_base_.val_sources.camvid}})))
test_dataloader = val_dataloader
val_evaluator = dict(tasks=dict(_delete_=True, sem_seg={{_base_.val_evaluator.tasks.sem_seg}}))
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=10),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
