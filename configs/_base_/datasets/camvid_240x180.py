# CamVid at half its size, for comparisons of many runs on a CPU; scores are those at 480x360.
_base_ = "camvid.py"

train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadMultiTaskAnnotations"),
    dict(type="RandomResize", scale=(240, 180), ratio_range=(0.75, 1.5), keep_ratio=True, resize_type="mmdet.Resize"),
    dict(type="mmdet.RandomCrop", crop_type="absolute", crop_size=(224, 160), allow_negative_crop=True),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="PackMultiTaskInputs"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="mmdet.Resize", scale=(240, 180), keep_ratio=True),
    dict(type="LoadMultiTaskAnnotations"),
    dict(type="PackMultiTaskInputs"),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
