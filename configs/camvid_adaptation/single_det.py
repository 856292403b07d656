"""Comparison of adaptations on CamVid: det alone, everything trained from the first step.

python tools/train.py configs/camvid_adaptation/single_det.py
"""

_base_ = "finetune.py"
tasks = ("det",)
model = dict(tasks=dict(_delete_=True, det={{_base_.model.tasks.det}}))
train_dataloader = dict(dataset=dict(tasks=tasks))
val_dataloader = dict(dataset=dict(tasks=tasks))
test_dataloader = val_dataloader
val_evaluator = dict(
    tasks=dict(_delete_=True, det=dict(type="mmdet.CocoMetric", metric="bbox", proposal_nums=(1, 10, 100)))
)
test_evaluator = val_evaluator
