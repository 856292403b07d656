"""Classification on ImageNet-1k, detection on COCO and segmentation on ADE20K in one network, DaViT-Base.

The dense twin of het_moe-davit-b_in1k_coco_ade20k.py.

bash tools/dist_train.sh configs/het_davit-b_in1k_coco_ade20k.py 8
"""

_base_ = [
    "_base_/datasets/het_in1k_coco_ade20k.py",
    "_base_/models/het_davit-b.py",
    "_base_/schedules/iters_lamb.py",
    "_base_/iters_runtime.py",
]
default_hooks = dict(checkpoint=dict(interval=10000))
