"""The three tasks on CamVid's real frames; ImageNet backbone from the extra "efficientnet", no download.

python tools/dataset_converters/camvid_to_bdd100k.py CAMVID data/camvid
python tools/train.py configs/mt_camvid_baseline.py
"""

_base_ = [
    "_base_/datasets/camvid.py",
    "_base_/models/mt_efficientnet-lite0_fpn.py",
    "_base_/schedules/epochs_adamw.py",
    "_base_/default_runtime.py",
]
