# Rendered driving scenes in BDD100K's layout, 320x192; `make demo` and this command write them:
#   python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0
_base_ = "bdd100k.py"
data_root = "data/synthetic"

train_pipeline = [
    dict(type="LoadImage"),
    dict(type="LoadMultiTaskAnnotations"),
    dict(type="mmdet.RandomFlip", prob=0.5),
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
