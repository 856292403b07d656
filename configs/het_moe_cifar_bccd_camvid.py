"""Classification on CIFAR-10, detection on BCCD and segmentation on CamVid in one mixture-of-experts transformer.

The data is that of het_cifar_bccd_camvid.py.
python tools/train.py configs/het_moe_cifar_bccd_camvid.py
"""

_base_ = [
    "_base_/datasets/het_cifar_bccd_camvid.py",
    "_base_/models/het_moe-davit-nano.py",
    "_base_/iters_runtime.py",
    "_base_/schedules/iters_adamw_scratch.py",
]
# Fewer regions than for street scenes: an image has about a dozen cells.
model = dict(
    backbone=dict(mutual_information=dict(weight=0.05)),
    tasks=dict(
        cls=dict(head=dict(num_classes=10)),
        det=dict(
            roi_head=dict(bbox_head=dict(num_classes=3)),
            train_cfg=dict(rpn_proposal=dict(nms_pre=300, max_per_img=100), rcnn=dict(sampler=dict(num=64))),
            test_cfg=dict(rpn=dict(nms_pre=300, max_per_img=100)),
        ),
        sem_seg=dict(decode_head=dict(num_classes=11)),
    ),
)
