# The tasks cls, det and sem_seg on EfficientNet-lite0 with a narrow FPN, for small images and CPUs.
_base_ = "mt_efficientnet-lite0_fpn.py"
cls = dict(
    _scope_="mmpretrain",
    type="ImageClassifier",
    backbone=dict(type="mtadapt.SharedFeatures", source="backbone", indices=(3,)),
    neck=dict(type="GlobalAveragePooling"),
    head=dict(
        type="LinearClsHead", num_classes=8, in_channels=320, loss=dict(type="CrossEntropyLoss", loss_weight=1.0)
    ),
)
model = dict(tasks=dict(_delete_=True, cls=cls, det={{_base_.det}}, sem_seg={{_base_.sem_seg}}))
