"""Heuristic pre-training of Swin-B on COCO and BDD100K: labels, masked images and contrast together.

tools/dist_train.sh configs/hvp_swin-b_8xb128-192px.py 8 --amp
"""

_base_ = [
    "_base_/datasets/hvp_coco_bdd100k.py",
    "_base_/models/hvp_swin-b.py",
    "_base_/schedules/hvp_swin-b_100e.py",
    "_base_/hvp_runtime.py",
]
model = dict(multi_label=dict(labels={{_base_.labels}}))
default_hooks = dict(checkpoint=dict(interval=1840))
val_evaluator = [dict(type="MultiLabelMAP"), dict(type="KNNTop1", group="weather")]
test_evaluator = val_evaluator
