"""The third task of het_moe_cifar_bccd_camvid.py alone: what tools/moe/extend.py and adapt.py read a new task from.

python tools/moe/extend.py configs/het_moe_cifar_bccd.py work_dirs/het_moe_cifar_bccd/iter_600.pth \
    --from configs/het_moe_camvid.py --task sem_seg --experts 2 --out work_dirs/moe_camvid
python tools/train.py work_dirs/moe_camvid/config.py
"""

_base_ = "het_moe_cifar_bccd_camvid.py"
max_iters = 300
model = dict(backbone=dict(tasks=["sem_seg"]), tasks=dict(_delete_=True, sem_seg={{_base_.model.tasks.sem_seg}}))
train_dataloader = dict(
    dataset=dict(sources=dict(_delete_=True, camvid={{_base_.sources.camvid}})),
    batch_sampler=dict(batch_size=dict(_delete_=True, camvid=4)),
)
val_dataloader = dict(dataset=dict(sources=dict(_delete_=True, camvid={{_base_.val_sources.camvid}})))
test_dataloader = val_dataloader
val_evaluator = dict(tasks=dict(_delete_=True, sem_seg={{_base_.val_evaluator.tasks.sem_seg}}))
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
