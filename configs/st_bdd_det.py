"""Detection alone on BDD100K, R-50 FPN.

bash tools/dist_train.sh configs/st_bdd_det.py 8
"""

_base_ = "mt_bdd_baseline.py"
tasks = ("det",)
model = dict(tasks=dict(_delete_=True, det={{_base_.det}}))
train_dataloader = dict(dataset=dict(tasks=tasks, label_tasks=("det", "sem_seg", "drivable")))
val_dataloader = dict(dataset=dict(tasks=tasks))
test_dataloader = val_dataloader
val_evaluator = dict(
    tasks=dict(_delete_=True, det=dict(type="mmdet.CocoMetric", metric="bbox", proposal_nums=(1, 10, 100)))
)
test_evaluator = val_evaluator
