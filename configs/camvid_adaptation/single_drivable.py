"""Comparison of adaptations on CamVid: drivable alone, everything trained from the first step.

python tools/train.py configs/camvid_adaptation/single_drivable.py
"""

_base_ = "finetune.py"
tasks = ("drivable",)
model = dict(tasks=dict(_delete_=True, drivable={{_base_.model.tasks.drivable}}))
train_dataloader = dict(dataset=dict(tasks=tasks))
val_dataloader = dict(dataset=dict(tasks=tasks))
test_dataloader = val_dataloader
val_evaluator = dict(tasks=dict(_delete_=True, drivable=dict(type="DrivableMetric")))
test_evaluator = val_evaluator
