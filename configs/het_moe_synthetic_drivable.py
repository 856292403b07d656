"""Drivable area on the scenes of `make demo`: the task that is added to het_moe_synthetic.py, here alone.

python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0
python tools/moe/extend.py configs/het_moe_synthetic.py work_dirs/het_moe_synthetic/iter_1500.pth \
    --from configs/het_moe_synthetic_drivable.py --task drivable --experts 2 --out work_dirs/moe_drivable
python tools/train.py work_dirs/moe_drivable/config.py
"""

_base_ = "het_moe_synthetic.py"
max_iters = 300
scenes = dict(
    type="mtadapt.BDD100KDataset",
    data_root="data/synthetic",
    tasks=("drivable",),
    on_error="raise",
)
load = [dict(type="mtadapt.LoadImage"), dict(type="mtadapt.LoadMultiTaskAnnotations")]
pack = dict(type="mtadapt.PackMultiTaskInputs")
model = dict(backbone=dict(tasks=["drivable"]), tasks=dict(_delete_=True, drivable={{_base_.drivable}}))
train_dataloader = dict(
    dataset=dict(
        sources=dict(
            _delete_=True,
            scenes=dict(
                tasks=["drivable"],
                dataset=dict(**scenes, split="train", pipeline=[*load, dict(type="mmdet.RandomFlip", prob=0.5), pack]),
            ),
        )
    ),
    batch_sampler=dict(weights=dict(_delete_=True, scenes=1), batch_size=dict(_delete_=True, scenes=4)),
)
val_dataloader = dict(
    dataset=dict(
        sources=dict(
            _delete_=True,
            scenes=dict(
                tasks=["drivable"],
                dataset=dict(**scenes, split="val", test_mode=True, pipeline=[*load, pack]),
            ),
        )
    )
)
test_dataloader = val_dataloader
val_evaluator = dict(tasks=dict(_delete_=True, drivable=dict(type="DrivableMetric")))
test_evaluator = val_evaluator
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", by_epoch=False, begin=0, end=max_iters, T_max=max_iters, eta_min_ratio=0.01),
]
