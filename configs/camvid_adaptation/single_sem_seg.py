"""Comparison of adaptations on CamVid: sem_seg alone, everything trained from the first step.

python tools/train.py configs/camvid_adaptation/single_sem_seg.py
"""

_base_ = "finetune.py"
tasks = ("sem_seg",)
model = dict(tasks=dict(_delete_=True, sem_seg={{_base_.model.tasks.sem_seg}}))
train_dataloader = dict(dataset=dict(tasks=tasks))
val_dataloader = dict(dataset=dict(tasks=tasks))
test_dataloader = val_dataloader
val_evaluator = dict(tasks=dict(_delete_=True, sem_seg=dict(type="mmseg.IoUMetric", iou_metrics=["mIoU"])))
test_evaluator = val_evaluator
