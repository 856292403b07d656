"""Baseline of drivable on CamVid at 240x180: mmseg's own EncoderDecoder with the multi-task config's settings.

python tools/train.py configs/zoo/camvid/single_drivable.py
"""

_base_ = "single_sem_seg.py"
tasks = ("drivable",)
train_dataloader = dict(dataset=dict(tasks=tasks))
val_dataloader = dict(dataset=dict(tasks=tasks))
test_dataloader = val_dataloader
val_evaluator = dict(_delete_=True, type="mtadapt.DrivableMetric")
test_evaluator = val_evaluator
model = dict(decode_head=dict(num_classes=3))
