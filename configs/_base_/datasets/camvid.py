# CamVid in BDD100K's layout, 480x360; this command writes it from the SegNet tutorial's copy of CamVid:
#   python tools/dataset_converters/camvid_to_bdd100k.py CAMVID data/camvid
_base_ = "bdd100k.py"
data_root = "data/camvid"

train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadMultiTaskAnnotations"),
    dict(type="RandomResize", scale=(480, 360), ratio_range=(0.75, 1.5), keep_ratio=True, resize_type="mmdet.Resize"),
    dict(type="mmdet.RandomCrop", crop_type="absolute", crop_size=(416, 320), allow_negative_crop=True),
    dict(type="mmdet.RandomFlip", prob=0.5),
    dict(type="mmseg.PhotoMetricDistortion"),
    dict(type="PackMultiTaskInputs"),
]
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadMultiTaskAnnotations"),
    dict(type="PackMultiTaskInputs"),
]
train_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root, on_error="raise", pipeline=train_pipeline))
val_dataloader = dict(batch_size=4, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader
