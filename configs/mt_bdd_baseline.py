"""Detection, semantic segmentation and drivable area on BDD100K in one network, R-50 FPN.

bash tools/dist_train.sh configs/mt_bdd_baseline.py 8
"""

_base_ = [
    "_base_/datasets/bdd100k.py",
    "_base_/models/mt_r50_fpn.py",
    "_base_/schedules/epochs_12.py",
    "_base_/default_runtime.py",
]
