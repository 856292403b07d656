"""Drivable area alone on BDD100K, R-50 Semantic FPN, with the public recipe: scales 0.5 to 2, crops of 1024x512.

bash tools/dist_train.sh configs/st_bdd_drivable.py 8
"""

_base_ = "st_bdd_sem_seg.py"
tasks = ("drivable",)
model = dict(tasks=dict(_delete_=True, drivable={{_base_.drivable}}))
train_dataloader = dict(dataset=dict(tasks=tasks))
val_dataloader = dict(dataset=dict(tasks=tasks))
test_dataloader = val_dataloader
val_evaluator = dict(tasks=dict(_delete_=True, drivable=dict(type="DrivableMetric")))
test_evaluator = val_evaluator
